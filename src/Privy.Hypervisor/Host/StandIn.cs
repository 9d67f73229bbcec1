using System.Runtime.InteropServices;
using Iced.Intel;
using Privy.Hypervisor.Signals;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Host;

/// <summary>
/// A process of the host that stands for a forked child, so that the world outside finds it (ps, pgrep) and can signal it. It does nothing but wait for signals
/// and hand each over; SIGKILL, which nobody can take, ends it, and its end is the message.
/// </summary>
/// <remarks>
/// It shares the memory of this process, which costs no copy of page tables, and runs a few instructions of machine code only. It has no descriptor but
/// the event's, is in a process group of its own, and dies with the thread that made it.
/// </remarks>
internal sealed unsafe class StandIn : IDisposable
{
    [StructLayout(LayoutKind.Explicit, Size = StackTop)]
    private struct Block
    {
        [FieldOffset(OPending)] internal int Pending;
        [FieldOffset(OEvent)] internal int Event;
        [FieldOffset(OOne)] internal ulong One;
        [FieldOffset(OSignals)] internal ulong Signals;
        [FieldOffset(OName)] internal fixed byte Name[16];
        [FieldOffset(OInfo)] internal SignalInfo Info;
    }

    private const int OPending = 0, OEvent = 4, OOne = 8, OSignals = 16, OName = 24, OInfo = 64, StackTop = OInfo + SignalInfo.Size + 256;

    private static readonly delegate* unmanaged<Block*, long> Stub = Assemble();

    private readonly Block* _block;

    private StandIn(Block* block) => _block = block;

    /// <summary>Its process id.</summary>
    internal int ProcessId { get; private init; }

    /// <summary>Becomes readable when it has ended. A descriptor of the hypervisor.</summary>
    internal int EndDescriptor { get; private init; }

    /// <summary>Makes one. The calling thread must live as long as it is to live.</summary>
    /// <param name="name">What ps shows.</param>
    /// <param name="eventDescriptor">An eventfd that it increments when a signal has come.</param>
    /// <returns>Null where the host refuses (a limit on processes).</returns>
    internal static StandIn? Start(ReadOnlySpan<byte> name, int eventDescriptor)
    {
        const long pidfdOpen = 434;
        const int longestName = 15;
        var block = (Block*)NativeMemory.AlignedAlloc(StackTop, 64);
        *block = new Block { Event = eventDescriptor, One = 1, Signals = ulong.MaxValue };
        name[..Math.Min(name.Length, longestName)].CopyTo(new Span<byte>(block->Name, longestName));

        // Everything is blocked in it from its first instruction on: the handlers are this process' own.
        ulong all = ulong.MaxValue, old;
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&all, (ulong)&old, sizeof(ulong));
        var id = Stub(block);
        HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 2, (ulong)&old, 0, sizeof(ulong));
        if (id < 0)
        {
            NativeMemory.AlignedFree(block);
            return null;
        }

        var end = Kvm.OwnDescriptors.Make(() => (int)HostSyscall.Raw(pidfdOpen, (ulong)id));
        var standIn = new StandIn(block) { ProcessId = (int)id, EndDescriptor = end };
        if (end >= 0)
            return standIn;
        standIn.Kill();
        _ = standIn.TryReap(wait: true);
        standIn.Dispose();
        return null;
    }

    /// <summary>Takes the signal that has come, and lets it wait for the next.</summary>
    internal bool TryTake(out SignalInfo info)
    {
        const ulong wakePrivate = 129;
        info = default;
        if (Volatile.Read(ref _block->Pending) == 0)
            return false;
        info = _block->Info;
        Volatile.Write(ref _block->Pending, 0);
        _ = HostSyscall.RawQuick(202, (ulong)&_block->Pending, wakePrivate, 1);
        return true;
    }

    /// <summary>Ends it.</summary>
    internal void Kill() => _ = HostSyscall.RawQuick(HostCallNumber.Kill, (ulong)ProcessId, Signal.SIGKILL);

    /// <summary>True once it has ended, and is then no more.</summary>
    internal bool TryReap(bool wait = false)
    {
        // It was made without a signal for its end, so that no ordinary wait finds it.
        const ulong noHang = 1, clone = 0x8000_0000;
        const long wait4 = 61;
        int status;
        long result;
        while ((result = HostSyscall.Raw(wait4, (ulong)ProcessId, (ulong)&status, (wait ? 0 : noHang) | clone)) == -Errno.EINTR)
        {
        }

        return result != 0;
    }

    /// <summary>After its end.</summary>
    public void Dispose()
    {
        if (EndDescriptor >= 0)
        {
            // In this order: once closed, the number may be the program's.
            Kvm.OwnDescriptors.Remove(EndDescriptor);
            _ = HostSyscall.RawQuick(HostCallNumber.Close, (ulong)EndDescriptor);
        }

        NativeMemory.AlignedFree(_block);
    }

    private static delegate* unmanaged<Block*, long> Assemble()
    {
        const int cloneVm = 0x100, closeRange = 436, sigtimedwait = 128, futex = 202, futexWaitPrivate = 128, setName = 15, parentDeathSignal = 1;
        var c = new Assembler(64);
        Label entry = c.CreateLabel(), standIn = c.CreateLabel(), next = c.CreateLabel(), held = c.CreateLabel();
        c.Label(ref entry);
        c.push(rbx);
        c.mov(rbx, rdi);
        c.mov(edi, cloneVm);
        c.lea(rsi, __[rbx + StackTop]);
        c.xor(edx, edx);
        c.xor(r10d, r10d);
        c.xor(r8d, r8d);
        c.mov(eax, (int)HostCallNumber.Clone);
        c.syscall();
        c.test(rax, rax);
        c.je(standIn);
        c.pop(rbx);
        c.ret();

        c.Label(ref standIn);
        c.xor(edi, edi); // below the event's descriptor, which is never the first
        c.mov(esi, __dword_ptr[rbx + OEvent]);
        c.dec(esi);
        c.xor(edx, edx);
        c.mov(eax, closeRange);
        c.syscall();
        c.mov(edi, __dword_ptr[rbx + OEvent]);
        c.inc(edi);
        c.mov(esi, -1);
        c.xor(edx, edx);
        c.mov(eax, closeRange);
        c.syscall();
        c.mov(edi, parentDeathSignal);
        c.mov(esi, Signal.SIGKILL);
        c.mov(eax, (int)HostCallNumber.Prctl);
        c.syscall();
        c.mov(edi, setName);
        c.lea(rsi, __[rbx + OName]);
        c.mov(eax, (int)HostCallNumber.Prctl);
        c.syscall();
        c.xor(edi, edi);
        c.xor(esi, esi);
        c.mov(eax, (int)HostCallNumber.Setpgid);
        c.syscall();

        c.Label(ref next);
        c.lea(rdi, __[rbx + OSignals]);
        c.lea(rsi, __[rbx + OInfo]);
        c.xor(edx, edx);
        c.mov(r10d, 8);
        c.mov(eax, sigtimedwait);
        c.syscall();
        c.test(eax, eax);
        c.jle(next);
        c.mov(__dword_ptr[rbx + OPending], eax);
        c.mov(edi, __dword_ptr[rbx + OEvent]);
        c.lea(rsi, __[rbx + OOne]);
        c.mov(edx, 8);
        c.mov(eax, (int)HostCallNumber.Write);
        c.syscall();
        c.Label(ref held);
        c.mov(edx, __dword_ptr[rbx + OPending]);
        c.test(edx, edx);
        c.je(next);
        c.mov(rdi, rbx);
        c.mov(esi, futexWaitPrivate);
        c.xor(r10d, r10d);
        c.mov(eax, futex);
        c.syscall();
        c.jmp(held);
        return (delegate* unmanaged<Block*, long>)HostCode.Assemble(c).GetLabelRIP(entry);
    }
}
