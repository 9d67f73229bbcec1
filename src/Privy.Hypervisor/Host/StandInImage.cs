using System.Buffers.Binary;
using Iced.Intel;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Host;

/// <summary>
/// The program that a stand-in executes to have memory of its own: a few dozen instructions in a file without a name. Descriptor 0 is the channel to the hypervisor; the first word of
/// its environment is the name that ps shows. It writes each signal that it gets to the channel, and ends when nobody is at the other end.
/// </summary>
internal static unsafe class StandInImage
{
    private const ulong LoadAddress = 0x40_0000;
    private const int HeaderBytes = 64, SegmentBytes = 56, CodeOffset = HeaderBytes + (2 * SegmentBytes);

    /// <summary>Writes it to a file.</summary>
    /// <returns>Its descriptor, or a negative error number.</returns>
    internal static int Create()
    {
        const ulong closeOnExec = 1, executable = 0x10;
        var program = Build();
        long file;
        fixed (byte* name = "privy-child\0"u8)
        {
            file = HostSyscall.Raw(SyscallNumber.memfd_create, (ulong)name, closeOnExec | executable);
            // Linux before 6.3 does not know the flag, and makes every such file executable.
            if (file == -Errno.EINVAL)
                file = HostSyscall.Raw(SyscallNumber.memfd_create, (ulong)name, closeOnExec);
        }

        if (file < 0)
            return (int)file;
        fixed (byte* at = program)
        {
            if (HostSyscall.Raw(SyscallNumber.write, (ulong)file, (ulong)at, (ulong)program.Length) == program.Length)
            {
                // Executing a file that is open for writing is refused (ETXTBSY): once more, for reading alone.
                long reader;
                fixed (byte* path = System.Text.Encoding.ASCII.GetBytes($"/proc/thread-self/fd/{file}\0"))
                    reader = HostSyscall.Raw(SyscallNumber.open, (ulong)path, 0x80000);
                _ = HostSyscall.Raw(SyscallNumber.close, (ulong)file);
                return (int)reader;
            }
        }

        _ = HostSyscall.Raw(SyscallNumber.close, (ulong)file);
        return -Errno.ENOMEM;
    }

    /// <summary>The bytes of the ELF file (elf(5)).</summary>
    internal static byte[] Build()
    {
        using var code = new MemoryStream();
        var assembler = Assemble();
        assembler.Assemble(new StreamCodeWriter(code), LoadAddress + CodeOffset);
        var length = CodeOffset + (int)code.Length;
        var file = new byte[length];
        "\u007fELF"u8.CopyTo(file);
        (file[4], file[5], file[6]) = (2, 1, 1); // 64 bits, little endian, version
        Half(16, 2); // ET_EXEC
        Half(18, 62); // EM_X86_64
        Word(20, 1);
        Long(24, LoadAddress + CodeOffset);
        Long(32, HeaderBytes);
        Half(52, HeaderBytes);
        Half(54, SegmentBytes);
        Half(56, 2);
        Word(64, 1); // PT_LOAD, readable and executable, all of the file
        Word(68, 5);
        Long(80, LoadAddress);
        Long(88, LoadAddress);
        Long(96, (ulong)length);
        Long(104, (ulong)length);
        Long(112, 0x1000);
        Word(120, 0x6474_e551); // PT_GNU_STACK: a stack that is not executable
        Word(124, 6);
        code.ToArray().CopyTo(file.AsSpan(CodeOffset));
        return file;

        void Half(int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(at), value);
        void Word(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), value);
        void Long(int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(at), value);
    }

    private static Assembler Assemble()
    {
        const int signalfd4 = 289, ppoll = 271, rtSigtimedwait = 128, exitGroup = 231, setName = 15, closeOnExec = 0x80000, readable = 1;

        // On the stack, from the stack pointer up: all signals, no time, what is polled, the message.
        const int signals = 0, noTime = 8, polled = 24, message = 48, frame = message + StandInMessage.Size + 8;
        var c = new Assembler(64);
        Label report = c.CreateLabel(), next = c.CreateLabel(), end = c.CreateLabel();
        void Call(long number)
        {
            c.mov(eax, (int)number);
            c.syscall();
        }

        // At the entry: the count of arguments, their addresses, 0, the addresses of the environment.
        c.mov(rax, __qword_ptr[rsp]);
        c.mov(rsi, __qword_ptr[rsp + (rax * 8) + 16]);
        c.mov(edi, setName);
        Call(HostCallNumber.Prctl);
        c.sub(rsp, frame);
        c.mov(__qword_ptr[rsp + signals], -1);
        c.mov(__qword_ptr[rsp + noTime], 0);
        c.mov(__qword_ptr[rsp + noTime + 8], 0);
        c.mov(edi, -1);
        c.lea(rsi, __[rsp + signals]);
        c.mov(edx, 8);
        c.mov(r10d, closeOnExec);
        Call(signalfd4);
        c.mov(__dword_ptr[rsp + polled], eax);
        c.mov(__dword_ptr[rsp + polled + 4], readable);
        c.mov(__qword_ptr[rsp + polled + 8], 0); // descriptor 0: its end alone, which is always told
        Call(HostCallNumber.Getpid);
        c.mov(__dword_ptr[rsp + message + StandInMessage.OProcess], eax);
        c.mov(__qword_ptr[rsp + message], 0);

        c.Label(ref report);
        c.xor(edi, edi);
        c.lea(rsi, __[rsp + message]);
        c.mov(edx, StandInMessage.Size);
        Call(HostCallNumber.Write);
        c.test(rax, rax);
        c.js(end);
        c.Label(ref next);
        c.lea(rdi, __[rsp + polled]);
        c.mov(esi, 2);
        c.xor(edx, edx);
        c.xor(r10d, r10d);
        c.mov(r8d, 8);
        Call(ppoll);
        c.cmp(__word_ptr[rsp + polled + 14], 0);
        c.jne(end);
        c.lea(rdi, __[rsp + signals]);
        c.lea(rsi, __[rsp + message]);
        c.lea(rdx, __[rsp + noTime]);
        c.mov(r10d, 8);
        Call(rtSigtimedwait);
        c.test(eax, eax);
        c.jg(report);
        c.jmp(next);
        c.Label(ref end);
        c.xor(edi, edi);
        Call(exitGroup);
        c.ud2();
        return c;
    }
}
