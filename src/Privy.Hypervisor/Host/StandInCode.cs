using Iced.Intel;
using Privy.Hypervisor.Signals;
using static Iced.Intel.AssemblerRegisters;
using static Privy.Hypervisor.Host.StandInBlock;

namespace Privy.Hypervisor.Host;

/// <summary>The machine code that makes a stand-in and that it runs while it shares the hypervisor's memory, where managed code cannot run.</summary>
internal static unsafe class StandInCode
{
    private const int CloneVm = 0x100, CloneFiles = 0x400, RtSigtimedwait = 128, Getppid = 110, Dup3 = 292, Execveat = 322, CloseRange = 436, ExitGroup = 231;

    private static readonly delegate* unmanaged<StandInBlock*, long> s_clone = Assemble();

    /// <summary>Makes a process that runs this code on the block. Its id, or a negative error number.</summary>
    internal static long Clone(StandInBlock* block) => s_clone(block);

    private static delegate* unmanaged<StandInBlock*, long> Assemble()
    {
        const int closeOnExec = 0x80000, emptyPath = 0x1000, unshare = 2, setName = 15;
        var c = new Assembler(64);
        Label entry = c.CreateLabel(), standIn = c.CreateLabel(), wait = c.CreateLabel(), quiet = c.CreateLabel(), execute = c.CreateLabel();
        Label noImage = c.CreateLabel(), watch = c.CreateLabel(), look = c.CreateLabel();
        void Call(long number)
        {
            c.mov(eax, (int)number);
            c.syscall();
        }

        c.Label(ref entry);
        c.push(rbx);
        c.mov(rbx, rdi);
        c.mov(edi, CloneVm | CloneFiles);
        c.lea(rsi, __[rbx + StackTop]);
        c.xor(edx, edx);
        c.xor(r10d, r10d);
        c.xor(r8d, r8d);
        Call(HostCallNumber.Clone);
        c.test(rax, rax);
        c.je(standIn);
        c.pop(rbx);
        c.ret();

        // In a group of its own: what a terminal sends to the hypervisor's is passed on to the child by that.
        c.Label(ref standIn);
        c.mov(r12d, __dword_ptr[rbx + OChannel]);
        c.xor(r13d, r13d);
        c.mov(edi, setName);
        c.lea(rsi, __[rbx + OName]);
        Call(HostCallNumber.Prctl);
        c.xor(edi, edi);
        c.xor(esi, esi);
        Call(HostCallNumber.Setpgid);
        Call(HostCallNumber.Getpid);
        c.mov(__dword_ptr[rbx + OMessage + StandInMessage.OProcess], eax);
        c.lea(rdx, __[rbx + OFirst]);
        c.call(wait);

        // Descriptors of its own, of which it keeps two: it must not keep a file open that the program closes.
        c.mov(edi, __dword_ptr[rbx + OAbove]);
        c.mov(esi, -1);
        c.mov(edx, unshare);
        Call(CloseRange);
        c.test(eax, eax);
        c.js(watch);
        c.mov(edi, r12d);
        c.xor(esi, esi);
        c.xor(edx, edx);
        Call(Dup3);
        c.mov(edi, __dword_ptr[rbx + OImage]);
        c.mov(esi, 1);
        c.mov(edx, closeOnExec);
        Call(Dup3);
        c.mov(r14d, eax);
        c.xor(r12d, r12d);
        c.mov(edi, 2);
        c.mov(esi, -1);
        c.xor(edx, edx);
        Call(CloseRange);
        c.test(r14d, r14d);
        c.js(noImage);
        c.test(r13d, r13d);
        c.jne(execute);
        c.lea(rdx, __[rbx + OSecond]);
        c.call(wait);

        c.Label(ref execute);
        c.mov(edi, 1);
        c.lea(rsi, __[rbx + OEmpty]);
        c.mov(rdx, __qword_ptr[rbx + OArguments]);
        c.lea(r10, __[rbx + OEnvironment]);
        c.mov(r8d, emptyPath);
        Call(Execveat);

        // Where the host does not allow that, the same here, in shared memory.
        c.Label(ref noImage);
        c.mov(edi, 1);
        Call(HostCallNumber.Close);
        c.Label(ref watch);
        c.lea(rdi, __[rbx + OSignals]);
        c.lea(rsi, __[rbx + OMessage]);
        c.lea(rdx, __[rbx + OIdle]);
        c.mov(r10d, 8);
        Call(RtSigtimedwait);
        c.test(eax, eax);
        c.jle(look);
        c.mov(edi, r12d);
        c.lea(rsi, __[rbx + OMessage]);
        c.mov(edx, StandInMessage.Size);
        Call(HostCallNumber.Write);
        c.jmp(watch);
        c.Label(ref look);
        Call(Getppid);
        c.cmp(eax, __dword_ptr[rbx + OParent]);
        c.je(watch);
        c.xor(edi, edi);
        Call(ExitGroup);

        // Waits for a signal until the time at rdx; one that has come is sent anew, to be taken by the program that is executed next. r13d: its number.
        c.Label(ref wait);
        c.lea(rdi, __[rbx + OSignals]);
        c.lea(rsi, __[rbx + OMessage]);
        c.mov(r10d, 8);
        Call(RtSigtimedwait);
        c.test(eax, eax);
        c.jle(quiet);
        c.mov(r13d, eax);
        c.mov(edi, __dword_ptr[rbx + OMessage + StandInMessage.OProcess]);
        c.mov(esi, r13d);
        c.lea(rdx, __[rbx + OMessage]);
        Call(HostCallNumber.RtSigqueueinfo);
        c.Label(ref quiet);
        c.ret();
        return (delegate* unmanaged<StandInBlock*, long>)HostCode.Assemble(c).GetLabelRIP(entry);
    }
}
