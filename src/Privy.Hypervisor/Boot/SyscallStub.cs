using System.Runtime.InteropServices;
using Iced.Intel;
using Privy.Kernel;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Boot;

/// <summary>Where a vCPU stands that was kicked in its system-call stub, and so what its program's registers are.</summary>
internal enum StubPosition
{
    /// <summary>Not in the stub.</summary>
    Outside,

    /// <summary>Nothing has happened: rcx and r11 are as SYSCALL left them, all others as the program left them.</summary>
    Begun,

    /// <summary>The call may be posted: <see cref="SyscallRing.State"/> says how far it is, the ring holds number, rip and flags.</summary>
    Posted,

    /// <summary>
    /// A write is being copied into the buffer and has not counted yet; the ring holds rip, flags, and the program's rdi and rsi. rax is the call's number.
    /// </summary>
    Buffering,

    /// <summary>A write is in the buffer: rdx is its result, the rest as in <see cref="Buffering"/>.</summary>
    Buffered,

    /// <summary>A read has taken what was received ahead, or a wait has its event: the ring holds the result, rip, flags, and the program's rdi and rsi.</summary>
    Fetched,

    /// <summary>The call will leave the guest; the ring holds number, rip and flags.</summary>
    Restoring,

    /// <summary>The call has its result in the ring.</summary>
    Done,

    /// <summary>The call has its result in rax; rcx and r11 are restored.</summary>
    Leaving,

    /// <summary>As <see cref="Leaving"/>, with the program's stack pointer in the ring.</summary>
    LeavingOnOwnStack,
}

/// <summary>
/// The target of SYSCALL: answers a call itself, posts it for the polling host thread, or leaves the guest by the doorbell. No register is
/// free here; everything is reached relative to rip. The flags are: r11 holds the program's.
/// </summary>
/// <remarks>
/// Where SYSCALL stays in ring 3 (paravirtual KVM) the way back is POPFQ and a jump; where it enters ring 0, SYSRET. A kick may hit any
/// instruction of it; <see cref="Locate"/> tells what then holds, and <see cref="Vcpu"/> completes the call or takes it back.
/// </remarks>
internal sealed class SyscallStub
{
    private const int Write = 1, Getpid = 39, Gettid = 186, SchedYield = 24, EpollWait = 232;
    private const int YieldsPerExit = 16;
    private const int TrapFlag = 0x100;

    /// <summary>The kernel's half is one aligned range of this many bits.</summary>
    private const int KernelHalfShift = 43;

    /// <summary>The logarithm of the length of a <see cref="Fetched"/>.</summary>
    private const byte FetchedShift = 5;

    private readonly ulong[] _at;

    private SyscallStub(ulong[] at) => _at = at;

    /// <summary>The places that tell the parts of the code from each other, in the order of their addresses.</summary>
    private enum Place
    {
        Entry,
        Doorbell,
        Return,
        Post,
        Wait,
        Restore,
        Done,
        Write,
        Buffering,
        Copy,
        Committed,
        Full,
        Read,
        Fetching,
        Events,
        Reporting,
        Fetched,
        Yield,
        Zero,
        Tid,
        Pid,
        Leave,
        OwnStack,
        End,
    }

    /// <summary>Target of SYSCALL.</summary>
    internal ulong Entry => this[Place.Entry];

    /// <summary>The SYSRETQ after the doorbell, where ring 0 stands while the host serves a call.</summary>
    internal ulong Return => this[Place.Return];

    /// <summary>The instruction that reads the program's memory.</summary>
    internal ulong Copy => this[Place.Copy];

    private ulong this[Place place] => _at[(int)place];

    /// <summary>The same stub in another vCPU's area.</summary>
    internal SyscallStub MovedBy(ulong distance) => new(Array.ConvertAll(_at, a => a + distance));

    /// <summary>Tells what holds at an instruction of the stub.</summary>
    internal StubPosition Locate(ulong rip)
    {
        if (rip < Entry || rip >= this[Place.End] || rip == Return)
            return StubPosition.Outside;
        if (rip < this[Place.Wait])
            return StubPosition.Begun;
        if (rip < this[Place.Restore])
            return StubPosition.Posted;
        if (rip < this[Place.Done])
            return StubPosition.Restoring;
        if (rip < this[Place.Write])
            return StubPosition.Done;
        if (rip <= this[Place.Buffering])
            return StubPosition.Begun;
        if (rip < this[Place.Read])
            return rip >= this[Place.Committed] && rip < this[Place.Full] ? StubPosition.Buffered : StubPosition.Buffering;
        if (rip <= this[Place.Fetching])
            return StubPosition.Begun;
        if (rip < this[Place.Events])
            return StubPosition.Buffering;
        if (rip <= this[Place.Reporting])
            return StubPosition.Begun;
        if (rip < this[Place.Yield])
            return rip >= this[Place.Fetched] ? StubPosition.Fetched : StubPosition.Buffering;
        // rax is the call's number until the instruction at one of these has been executed.
        if (rip <= this[Place.Zero] || rip == this[Place.Tid] || rip == this[Place.Pid])
            return StubPosition.Begun;
        return rip <= this[Place.OwnStack] ? StubPosition.Leaving : StubPosition.LeavingOnOwnStack;
    }

    /// <summary>Emits the stub; the result is to be called with what the assembler made of it.</summary>
    internal static Func<AssemblerResult, SyscallStub> Assemble(Assembler asm, ulong area, Action doorbell)
    {
        var labels = Enum.GetValues<Place>().Select(p => asm.CreateLabel($"syscall_{p}")).ToArray();
        ref Label At(Place place) => ref labels[(int)place];
        // Relative to rip: the assembler's own syntax has no operand for that.
        MemoryOperand Memory(ulong offset) => new(Register.RIP, (long)(area + VcpuLayout.Ring + offset), 8);
        MemoryOperand Field(string name) => Memory((ulong)Marshal.OffsetOf<SyscallRing>(name));
        void Store(string field, Register register) => asm.AddInstruction(Instruction.Create(Code.Mov_rm64_r64, Field(field), register));
        void StoreHalf(string field, int value) => asm.AddInstruction(Instruction.Create(Code.Mov_rm32_imm32, Field(field), value));
        void Load(Register register, string field) => asm.AddInstruction(Instruction.Create(Code.Mov_r64_rm64, register, Field(field)));
        void LoadHalf(Register register, string field) => asm.AddInstruction(Instruction.Create(Code.Mov_r32_rm32, register, Field(field)));
        void Compare(string field, int value) => asm.AddInstruction(Instruction.Create(Code.Cmp_rm32_imm8, Field(field), value));

        // With the registers that a copy has used as they were; rax is the result.
        void LeaveAsCalled()
        {
            Load(Register.RDI, nameof(SyscallRing.A0));
            Load(Register.RSI, nameof(SyscallRing.A1));
            Load(Register.RCX, nameof(SyscallRing.Rip));
            Load(Register.R11, nameof(SyscallRing.Flags));
            asm.jmp(At(Place.Leave));
        }

        asm.Label(ref At(Place.Entry));
        Compare(nameof(SyscallRing.Mode), SyscallMode.Exit);
        asm.je(At(Place.Doorbell));
        asm.cmp(rax, SyscallRing.NumberCount);
        asm.jae(At(Place.Doorbell));
        // A single step would trap in here: a program that steps goes the way on which nothing of the stub runs with its flags.
        asm.test(r11d, TrapFlag);
        asm.jne(At(Place.Doorbell));
        asm.cmp(eax, Getpid);
        asm.je(At(Place.Pid));
        asm.cmp(eax, Gettid);
        asm.je(At(Place.Tid));
        asm.cmp(eax, SchedYield);
        asm.je(At(Place.Yield));
        asm.cmp(eax, Write);
        asm.je(At(Place.Write));
        asm.test(eax, eax);
        asm.je(At(Place.Read));
        asm.cmp(eax, EpollWait);
        asm.je(At(Place.Events));
        var ring = asm.CreateLabel("syscall_ring");
        asm.Label(ref ring);
        Compare(nameof(SyscallRing.Mode), SyscallMode.Ring);
        asm.jne(At(Place.Doorbell));
        asm.AddInstruction(Instruction.Create(Code.Bt_rm32_r32, Field(nameof(SyscallRing.Numbers)), Register.EAX));
        asm.jc(At(Place.Post));

        asm.Label(ref At(Place.Doorbell));
        doorbell();
        asm.Label(ref At(Place.Return));
        asm.sysretq();

        asm.Label(ref At(Place.Post));
        Store(nameof(SyscallRing.Number), Register.RAX);
        Store(nameof(SyscallRing.A0), Register.RDI);
        Store(nameof(SyscallRing.A1), Register.RSI);
        Store(nameof(SyscallRing.A2), Register.RDX);
        Store(nameof(SyscallRing.A3), Register.R10);
        Store(nameof(SyscallRing.A4), Register.R8);
        Store(nameof(SyscallRing.A5), Register.R9);
        Store(nameof(SyscallRing.Rip), Register.RCX);
        Store(nameof(SyscallRing.Flags), Register.R11);
        StoreHalf(nameof(SyscallRing.State), RingState.Posted);
        asm.Label(ref At(Place.Wait));
        LoadHalf(Register.R11D, nameof(SyscallRing.Patience));
        var look = asm.CreateLabel("syscall_look");
        asm.Label(ref look);
        LoadHalf(Register.EAX, nameof(SyscallRing.State));
        asm.cmp(eax, RingState.Done);
        asm.je(At(Place.Done));
        asm.ja(At(Place.Restore));
        asm.pause();
        asm.dec(r11d);
        asm.jne(look);
        // Out of patience: the poller does not run, or has others to serve. What it has claimed must be waited for.
        asm.mov(eax, RingState.Posted);
        asm.xor(ecx, ecx);
        var takeBack = Instruction.Create(Code.Cmpxchg_rm32_r32, Field(nameof(SyscallRing.State)), Register.ECX);
        takeBack.HasLockPrefix = true;
        asm.AddInstruction(takeBack);
        asm.jne(At(Place.Wait));
        asm.AddInstruction(Instruction.Create(Code.Inc_rm32, Field(nameof(SyscallRing.TakenBack))));

        asm.Label(ref At(Place.Restore));
        StoreHalf(nameof(SyscallRing.State), RingState.Idle);
        Load(Register.RAX, nameof(SyscallRing.Number));
        Load(Register.RCX, nameof(SyscallRing.Rip));
        Load(Register.R11, nameof(SyscallRing.Flags));
        asm.jmp(At(Place.Doorbell));

        asm.Label(ref At(Place.Done));
        StoreHalf(nameof(SyscallRing.State), RingState.Idle);
        Load(Register.RAX, nameof(SyscallRing.Result));
        Load(Register.RCX, nameof(SyscallRing.Rip));
        Load(Register.R11, nameof(SyscallRing.Flags));
        asm.jmp(At(Place.Leave));

        // A small write of a snapshot's child to a file of its own (Processes/WriteBehind.cs), or of the main thread to a socket (Processes/DeferredSends.cs). The
        // copy may fault like any access of the program.
        asm.Label(ref At(Place.Write));
        var socket = asm.CreateLabel("syscall_socket");
        var buffer = asm.CreateLabel("syscall_buffer");
        asm.AddInstruction(Instruction.Create(Code.Cmp_rm32_r32, Field(nameof(SyscallRing.BufferedDescriptor)), Register.EDI));
        asm.jne(socket);
        asm.cmp(rdx, SyscallRing.LongestBufferedWrite);
        asm.ja(At(Place.Doorbell));
        StoreHalf(nameof(SyscallRing.BufferHeader), 0);
        asm.jmp(buffer);
        asm.Label(ref socket);
        asm.cmp(edi, SyscallRing.SendDescriptorCount);
        asm.jae(ring);
        asm.AddInstruction(Instruction.Create(Code.Bt_rm32_r32, Field(nameof(SyscallRing.SendDescriptors)), Register.EDI));
        asm.jnc(ring);
        Compare(nameof(SyscallRing.SendsOpen), 0);
        asm.je(ring);
        asm.cmp(rdx, SyscallRing.LongestBufferedWrite);
        asm.ja(ring);
        StoreHalf(nameof(SyscallRing.BufferHeader), SyscallRing.SendHeader);
        asm.Label(ref buffer);
        Store(nameof(SyscallRing.Rip), Register.RCX);
        Store(nameof(SyscallRing.Flags), Register.R11);
        Store(nameof(SyscallRing.A0), Register.RDI);
        Store(nameof(SyscallRing.A1), Register.RSI);
        asm.Label(ref At(Place.Buffering));
        Load(Register.RDI, nameof(SyscallRing.BufferNext));
        asm.lea(rcx, __[rdi + rdx + (2 * SyscallRing.SendHeader)]);
        asm.AddInstruction(Instruction.Create(Code.Cmp_r64_rm64, Register.RCX, Field(nameof(SyscallRing.BufferEnd))));
        asm.ja(At(Place.Full));
        // The kernel's half is no memory of the program's, though ring 3 could read it: the host says EFAULT.
        asm.mov(rcx, rsi);
        asm.shr(rcx, KernelHalfShift);
        asm.cmp(ecx, (int)(Layout.KernelBase >> KernelHalfShift));
        asm.je(At(Place.Full));
        var copy = asm.CreateLabel("syscall_copy");
        var commit = asm.CreateLabel("syscall_commit");
        LoadHalf(Register.R11D, nameof(SyscallRing.BufferHeader));
        asm.test(r11d, r11d);
        asm.je(copy);
        LoadHalf(Register.ECX, nameof(SyscallRing.A0));
        asm.mov(__dword_ptr[rdi], ecx);
        asm.mov(__dword_ptr[rdi + 4], edx);
        asm.add(rdi, r11);
        asm.Label(ref copy);
        asm.mov(rcx, rdx);
        asm.cld();
        asm.Label(ref At(Place.Copy));
        asm.rep.movsb();
        var taken = asm.CreateLabel("syscall_taken");
        asm.cmp(r11d, SyscallRing.SendHeader);
        asm.jb(commit);
        asm.ja(taken);
        asm.add(rdi, SyscallRing.SendHeader - 1);
        asm.and(rdi, -SyscallRing.SendHeader);
        asm.Label(ref commit);
        Store(nameof(SyscallRing.BufferNext), Register.RDI);
        asm.Label(ref At(Place.Committed));
        asm.mov(rax, rdx);
        LeaveAsCalled();
        asm.Label(ref At(Place.Full));
        Load(Register.RDI, nameof(SyscallRing.A0));
        Load(Register.RCX, nameof(SyscallRing.Rip));
        Load(Register.R11, nameof(SyscallRing.Flags));
        asm.jmp(At(Place.Doorbell));

        // A read of what was received ahead (Polling/ReadAhead.cs). The copy is the instruction above: the program's page may fault.
        const int isRead = 2 * SyscallRing.SendHeader;
        asm.Label(ref At(Place.Read));
        asm.cmp(edi, SyscallRing.SendDescriptorCount);
        asm.jae(ring);
        asm.AddInstruction(Instruction.Create(Code.Bt_rm32_r32, Field(nameof(SyscallRing.FetchedDescriptors)), Register.EDI));
        asm.jnc(ring);
        Store(nameof(SyscallRing.Rip), Register.RCX);
        Store(nameof(SyscallRing.Flags), Register.R11);
        Store(nameof(SyscallRing.A0), Register.RDI);
        Store(nameof(SyscallRing.A1), Register.RSI);
        asm.Label(ref At(Place.Fetching));
        void LoadFetched(AssemblerRegister64 descriptor)
        {
            asm.mov(rcx, Layout.KernelBase + Layout.ReadAheadOffset);
            asm.shl(descriptor, FetchedShift);
            asm.add(rcx, descriptor);
        }

        // What is left of it, with a jump to Full where that is nothing.
        void LoadLeft()
        {
            asm.mov(r11, __qword_ptr[rcx + FetchedField(nameof(Fetched.Length))]);
            asm.sub(r11, __qword_ptr[rcx + FetchedField(nameof(Fetched.Taken))]);
            asm.je(At(Place.Full));
        }

        // An address of the kernel's half is the host's work. To is the copy's target from then on.
        void CopyTo(AssemblerRegister64 to)
        {
            asm.mov(r11, to);
            asm.shr(r11, KernelHalfShift);
            asm.cmp(r11d, (int)(Layout.KernelBase >> KernelHalfShift));
            asm.je(At(Place.Full));
            asm.mov(rdi, to);
        }

        var part = asm.CreateLabel("syscall_part");
        var fits = asm.CreateLabel("syscall_fits");
        asm.mov(r11d, edi);
        LoadFetched(r11);
        LoadLeft();
        asm.cmp(rdx, r11);
        asm.jb(part);
        asm.je(fits);
        asm.cmp(__qword_ptr[rcx + FetchedField(nameof(Fetched.More))], 0);
        asm.jne(At(Place.Full));
        asm.jmp(fits);
        asm.Label(ref part);
        asm.mov(r11, rdx);
        asm.Label(ref fits);
        Store(nameof(SyscallRing.Result), Register.R11);
        CopyTo(rsi);
        asm.mov(rsi, __qword_ptr[rcx + FetchedField(nameof(Fetched.Address))]);
        asm.add(rsi, __qword_ptr[rcx + FetchedField(nameof(Fetched.Taken))]);
        Load(Register.RCX, nameof(SyscallRing.Result));
        asm.mov(r11d, isRead);
        asm.cld();
        asm.jmp(At(Place.Copy));

        // A wait for events while bytes that were received ahead are left: they are the event. All descriptors are looked at by the host, when it is asked again.
        const int isEvent = 3 * SyscallRing.SendHeader;
        asm.Label(ref At(Place.Events));
        asm.AddInstruction(Instruction.Create(Code.Cmp_rm32_r32, Field(nameof(SyscallRing.ReadyEpoll)), Register.EDI));
        asm.jne(ring);
        Compare(nameof(SyscallRing.ReadyBudget), 0);
        asm.jle(ring);
        asm.test(edx, edx);
        asm.jle(ring);
        Store(nameof(SyscallRing.Rip), Register.RCX);
        Store(nameof(SyscallRing.Flags), Register.R11);
        Store(nameof(SyscallRing.A0), Register.RDI);
        Store(nameof(SyscallRing.A1), Register.RSI);
        asm.Label(ref At(Place.Reporting));
        asm.AddInstruction(Instruction.Create(Code.Dec_rm32, Field(nameof(SyscallRing.ReadyBudget))));
        Load(Register.RCX, nameof(SyscallRing.ReadyFetched));
        LoadLeft();
        CopyTo(rsi);
        asm.AddInstruction(Instruction.Create(Code.Mov_rm64_imm32, Field(nameof(SyscallRing.Result)), 1));
        asm.AddInstruction(Instruction.Create(Code.Lea_r64_m, Register.RSI, Field(nameof(SyscallRing.ReadyEvent))));
        asm.mov(ecx, SyscallRing.EventSize);
        asm.mov(r11d, isEvent);
        asm.cld();
        asm.jmp(At(Place.Copy));

        var answered = asm.CreateLabel("syscall_answered");
        asm.Label(ref taken);
        asm.cmp(r11d, isEvent);
        asm.je(answered);
        LoadHalf(Register.EDI, nameof(SyscallRing.A0));
        LoadFetched(rdi);
        Load(Register.R11, nameof(SyscallRing.Result));
        asm.add(__qword_ptr[rcx + FetchedField(nameof(Fetched.Taken))], r11);
        asm.Label(ref At(Place.Fetched));
        asm.mov(r11, __qword_ptr[rcx + FetchedField(nameof(Fetched.Length))]);
        asm.sub(r11, __qword_ptr[rcx + FetchedField(nameof(Fetched.Taken))]);
        asm.jne(answered);
        asm.AddInstruction(Instruction.Create(Code.Cmp_r64_rm64, Register.RCX, Field(nameof(SyscallRing.ReadyFetched))));
        asm.jne(answered);
        StoreHalf(nameof(SyscallRing.ReadyBudget), 0);
        asm.Label(ref answered);
        Load(Register.RAX, nameof(SyscallRing.Result));
        LeaveAsCalled();

        asm.Label(ref At(Place.Yield));
        asm.AddInstruction(Instruction.Create(Code.Dec_rm32, Field(nameof(SyscallRing.YieldsLeft))));
        asm.jns(At(Place.Zero));
        StoreHalf(nameof(SyscallRing.YieldsLeft), YieldsPerExit - 1);
        asm.jmp(At(Place.Doorbell));
        asm.Label(ref At(Place.Zero));
        asm.xor(eax, eax);
        asm.jmp(At(Place.Leave));
        asm.Label(ref At(Place.Tid));
        LoadHalf(Register.EAX, nameof(SyscallRing.ThreadId));
        asm.jmp(At(Place.Leave));
        asm.Label(ref At(Place.Pid));
        LoadHalf(Register.EAX, nameof(SyscallRing.ProcessId));

        asm.Label(ref At(Place.Leave));
        Compare(nameof(SyscallRing.Ring0), 0);
        asm.jne(At(Place.Return));
        // For whoever counts (Sites/SyscallSites.cs): the host sees nothing else of this call.
        Store(nameof(SyscallRing.Rip), Register.RCX);
        Store(nameof(SyscallRing.StackPointer), Register.RSP);
        asm.Label(ref At(Place.OwnStack));
        asm.AddInstruction(Instruction.Create(Code.Lea_r64_m, Register.RSP, Memory(SyscallRing.StackTop)));
        asm.push(r11);
        asm.popfq();
        Load(Register.RSP, nameof(SyscallRing.StackPointer));
        asm.jmp(rcx);
        asm.Label(ref At(Place.End));
        asm.ud2();
        static int FetchedField(string name) => (int)Marshal.OffsetOf<Fetched>(name);
        return result => new SyscallStub(Array.ConvertAll(labels, l => result.GetLabelRIP(l)));
    }
}
