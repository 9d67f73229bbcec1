using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Privy.Kvm;

namespace Privy.Hypervisor.Signals;

/// <summary>
/// The frame that a handler finds on its stack and that rt_sigreturn takes back: <c>struct rt_sigframe</c> of x86-64 with the XSAVE image above it
/// (arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h).
/// </summary>
public static class SignalFrame
{
    // Offsets in rt_sigframe. ucontext begins behind the return address.
    internal const int Context = 8;
    internal const int StackPointerField = Context + 16, StackFlags = Context + 24, StackSize = Context + 32;
    internal const int Registers = Context + 40;
    internal const int Selectors = Registers + 144, ErrorCode = Registers + 152, TrapNumber = Registers + 160, OldMask = Registers + 168, Cr2 = Registers + 176, FpState = Registers + 184;
    internal const int SignalMask = Registers + 256;
    internal const int Info = SignalMask + 8;

    /// <summary>Length of the frame without the extended state.</summary>
    public const int Length = Info + SignalInfo.Size;

    private const ulong UC_FP_XSTATE = 1, UC_SIGCONTEXT_SS = 2, UC_STRICT_RESTORE_SS = 4;
    private const int RedZone = 128;
    private const uint Magic1 = 0x46505853, Magic2 = 0x46505845;
    private const int SoftwareBytes = 464, LegacyLength = 512, HeaderLength = 64, Mxcsr = 24, MxcsrMask = 28;
    private const ushort UserCs = 0x33, UserSs = 0x2b;

    private const ulong CarryFlag = 1, Fixed = 2, ParityFlag = 4, AdjustFlag = 0x10, ZeroFlag = 0x40, SignFlag = 0x80, TrapFlag = 0x100, InterruptFlag = 0x200,
        DirectionFlag = 0x400, OverflowFlag = 0x800, ResumeFlag = 0x10000, AlignmentFlag = 0x40000;

    /// <summary>The flags a frame may set; the others keep their value (arch/x86/kernel/signal_64.c, FIX_EFLAGS).</summary>
    private const ulong Restorable = AlignmentFlag | OverflowFlag | DirectionFlag | TrapFlag | SignFlag | ZeroFlag | AdjustFlag | ParityFlag | CarryFlag | ResumeFlag;

    /// <summary>Builds the frame for a handler and makes the registers start it.</summary>
    /// <param name="context">The thread.</param>
    /// <param name="info">The signal.</param>
    /// <param name="action">Its action, with a handler.</param>
    /// <param name="mask">The mask to go back to after the handler.</param>
    /// <returns>False if the frame cannot be written or the action has no restorer: the program gets SIGSEGV.</returns>
    [SkipLocalsInit]
    public static bool TryBuild(ISignalContext context, in SignalInfo info, in SignalAction action, SignalSet mask)
    {
        ArgumentNullException.ThrowIfNull(context);
        if (!action.Has(SignalAction.SA_RESTORER))
            return false;
        ref GuestRegisters registers = ref context.Registers;
        ThreadSignals thread = context.ThreadSignals;
        AlternateStack alternate = thread.AlternateStack;

        bool onAlternate = alternate.IsActive(registers.Rsp);
        bool entering = false;
        ulong stack = registers.Rsp - RedZone;
        if (action.Has(SignalAction.SA_ONSTACK) && !onAlternate && alternate.Length != 0)
        {
            stack = alternate.Address + alternate.Length;
            entering = true;
        }
        int stateLength = context.XsaveLength;
        ulong state = (stack - (ulong)(stateLength + 4)) & ~63UL;
        // As after a call: rsp + 8 is a multiple of 16 when the handler starts.
        ulong frame = ((state - Length) & ~15UL) - 8;
        if ((onAlternate || entering) && !alternate.Contains(frame))
            return false;

        Span<byte> bytes = stackalloc byte[Length];
        bytes.Clear();
        Put(bytes, 0, action.Restorer);
        Put(bytes, Context, UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS);
        Put(bytes, StackPointerField, alternate.Address);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[StackFlags..], alternate.Flags);
        Put(bytes, StackSize, alternate.Length);
        ReadOnlySpan<ulong> saved =
        [
            registers.R8, registers.R9, registers.R10, registers.R11, registers.R12, registers.R13, registers.R14, registers.R15, registers.Rdi,
            registers.Rsi, registers.Rbp, registers.Rbx, registers.Rdx, registers.Rax, registers.Rcx, registers.Rsp, registers.Rip, registers.Rflags,
        ];
        for (int i = 0; i < saved.Length; i++)
            Put(bytes, Registers + i * 8, saved[i]);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[Selectors..], UserCs);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[(Selectors + 6)..], UserSs);
        TrapDetails trap = context.Trap;
        Put(bytes, ErrorCode, trap.ErrorCode);
        Put(bytes, TrapNumber, trap.Number);
        Put(bytes, OldMask, mask.Bits);
        Put(bytes, Cr2, trap.Address);
        Put(bytes, FpState, state);
        Put(bytes, SignalMask, mask.Bits);
        MemoryMarshal.Write(bytes[Info..], in info);

        var image = new byte[stateLength + 4];
        context.GetXsave(image.AsSpan(0, stateLength));
        Span<byte> software = image.AsSpan(SoftwareBytes, LegacyLength - SoftwareBytes);
        software.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(software, Magic1);
        BinaryPrimitives.WriteInt32LittleEndian(software[4..], stateLength + 4);
        Put(software, 8, context.XsaveFeatures);
        BinaryPrimitives.WriteInt32LittleEndian(software[16..], stateLength);
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(stateLength), Magic2);

        if (!context.TryWrite(state, image) || !context.TryWrite(frame, bytes))
            return false;

        if ((alternate.Flags & AlternateStack.SS_AUTODISARM) != 0)
            thread.AlternateStack = AlternateStack.None;
        registers.Rdi = (ulong)info.Number;
        registers.Rsi = frame + Info;
        registers.Rdx = frame + Context;
        registers.Rax = 0;
        registers.Rip = action.Handler;
        registers.Rsp = frame;
        registers.Rflags &= ~(DirectionFlag | ResumeFlag | TrapFlag);
        return true;
    }

    /// <summary>rt_sigreturn: takes registers, mask, alternate stack and extended state back from the frame.</summary>
    /// <returns>False if the frame cannot be read or makes no sense: the program gets SIGSEGV.</returns>
    [SkipLocalsInit]
    public static bool TryRestore(ISignalContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        ref GuestRegisters registers = ref context.Registers;
        // The handler's return has taken the restorer's address off the stack.
        ulong frame = registers.Rsp - 8;
        Span<byte> bytes = stackalloc byte[Info];
        if (!context.TryRead(frame, bytes))
            return false;
        ulong state = Get(bytes, FpState);
        if (!TryReadState(context, state, out byte[]? image))
            return false;

        context.ThreadSignals.Mask = new SignalSet(Get(bytes, SignalMask));
        registers.R8 = Get(bytes, Registers);
        registers.R9 = Get(bytes, Registers + 8);
        registers.R10 = Get(bytes, Registers + 16);
        registers.R11 = Get(bytes, Registers + 24);
        registers.R12 = Get(bytes, Registers + 32);
        registers.R13 = Get(bytes, Registers + 40);
        registers.R14 = Get(bytes, Registers + 48);
        registers.R15 = Get(bytes, Registers + 56);
        registers.Rdi = Get(bytes, Registers + 64);
        registers.Rsi = Get(bytes, Registers + 72);
        registers.Rbp = Get(bytes, Registers + 80);
        registers.Rbx = Get(bytes, Registers + 88);
        registers.Rdx = Get(bytes, Registers + 96);
        registers.Rax = Get(bytes, Registers + 104);
        registers.Rcx = Get(bytes, Registers + 112);
        registers.Rsp = Get(bytes, Registers + 120);
        registers.Rip = Get(bytes, Registers + 128);
        ulong flags = Get(bytes, Registers + 136);
        registers.Rflags = (registers.Rflags & ~Restorable) | (flags & Restorable) | InterruptFlag | Fixed;
        context.SetXsave(image);
        // Errors other than an unreadable frame do not matter (arch/x86/kernel/signal_64.c, restore_altstack).
        var alternate = new AlternateStack(Get(bytes, StackPointerField), BinaryPrimitives.ReadUInt32LittleEndian(bytes[StackFlags..]), Get(bytes, StackSize));
        _ = SignalCalls.SetAlternateStack(context.ThreadSignals, alternate, registers.Rsp);
        context.CallNumber = -1;
        return true;
    }

    private static bool TryReadState(ISignalContext context, ulong address, out byte[] image)
    {
        int full = context.XsaveLength;
        ulong features = context.XsaveFeatures;
        image = new byte[full];
        if (address == 0)
        {
            InitialState(image);
            return true;
        }
        // XRSTOR faults on an image that is not aligned, and so does the kernel's restore.
        if ((address & 63) != 0 || !context.TryRead(address, image.AsSpan(0, LegacyLength)))
            return false;
        Span<byte> software = image.AsSpan(SoftwareBytes);
        uint magic1 = BinaryPrimitives.ReadUInt32LittleEndian(software);
        uint extended = BinaryPrimitives.ReadUInt32LittleEndian(software[4..]);
        ulong saved = Get(software, 8);
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(software[16..]);
        Span<byte> magic2 = stackalloc byte[4];
        bool whole = magic1 == Magic1 && length >= LegacyLength + HeaderLength && length <= full && length <= extended;
        if (whole && !context.TryRead(address + length, magic2))
            return false;
        whole = whole && BinaryPrimitives.ReadUInt32LittleEndian(magic2) == Magic2;

        Span<byte> header = image.AsSpan(LegacyLength, HeaderLength);
        if (whole)
        {
            if (!context.TryRead(address + LegacyLength, image.AsSpan(LegacyLength, (int)length - LegacyLength)))
                return false;
            // XRSTOR faults on a compacted image or one with reserved bits; components that the frame does not declare start from their initial state.
            ulong present = Get(header, 0);
            if (header[8..].ContainsAnyExcept((byte)0) || (present & ~features) != 0)
                return false;
            Put(header, 0, present & saved);
        }
        else
        {
            // A program of old that moved only the legacy part.
            header.Clear();
            Put(header, 0, 3 & features);
        }
        uint allowed = BinaryPrimitives.ReadUInt32LittleEndian(image.AsSpan(MxcsrMask));
        if (allowed == 0)
            allowed = 0xffbf; // What FXSAVE without DAZ means by 0 (Intel SDM vol. 1, 11.6.6).
        uint mxcsr = BinaryPrimitives.ReadUInt32LittleEndian(image.AsSpan(Mxcsr));
        if ((mxcsr & ~0xffffu) != 0)
            return false;
        BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(Mxcsr), mxcsr & (allowed & 0xffff));
        image.AsSpan(SoftwareBytes, LegacyLength - SoftwareBytes).Clear();
        return true;
    }

    private static void InitialState(Span<byte> image)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(image, 0x37f); // x87 control word
        BinaryPrimitives.WriteUInt32LittleEndian(image[Mxcsr..], 0x1f80);
        BinaryPrimitives.WriteUInt32LittleEndian(image[MxcsrMask..], 0xffff);
        // All components in their initial state, but MXCSR is loaded with SSE.
        Put(image, LegacyLength, 3);
    }

    private static void Put(Span<byte> bytes, int offset, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(bytes[offset..], value);

    private static ulong Get(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt64LittleEndian(bytes[offset..]);
}
