using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Bench;

/// <summary>One snapshot of <see cref="SnapshotArray"/>.</summary>
/// <param name="Fork">How long fork took in the parent.</param>
/// <param name="Write">How long the parent then took to change a word in every page while the child was checking.</param>
/// <param name="IsExact">Whether the child saw exactly what the array held at the fork, in every byte.</param>
public readonly record struct ArraySnapshot(TimeSpan Fork, TimeSpan Write, bool IsExact);

/// <summary>
/// A program of a few hundred bytes that needs neither Redis nor a C library: it fills an array, forks again and again, goes on
/// changing the array while each child checks every byte of its snapshot. Assembled here and written as a static ELF file.
/// </summary>
/// <remarks>
/// Word j of page p begins as (512 p + j) × K. In round g the parent forks and then inverts word g of every page; so a
/// snapshot of round g is exact if the words before g of each page, and no others, are inverted.
/// After each round the program writes three 64-bit numbers: fork time, write time (nanoseconds), the child's wait status.
/// </remarks>
public static class SnapshotArray
{
    private const ulong Base = 0;
    private const int HeaderSize = 64 + 56 * 2;
    private const int PageWords = 512;
    private const long K = unchecked((long)0x9E3779B97F4A7C15);

    private const int SYS_write = 1, SYS_mmap = 9, SYS_fork = 57, SYS_exit = 60, SYS_wait4 = 61, SYS_clock_gettime = 228;

    /// <summary>Writes the program, makes it executable, runs it behind <paramref name="launcher"/>, and removes it.</summary>
    public static IReadOnlyList<ArraySnapshot> Run(IReadOnlyList<string> launcher, long bytes, int snapshots, Action<double>? progress = null, CancellationToken cancellation = default)
    {
        using var directory = new TemporaryDirectory("privy-array-");
        var path = Path.Combine(directory.Path, "snapshot-array");
        File.WriteAllBytes(path, Build(bytes, snapshots));
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return Execute([.. launcher, path], snapshots, progress, cancellation);
    }

    private static List<ArraySnapshot> Execute(List<string> command, int snapshots, Action<double>? progress, CancellationToken cancellation)
    {
        using var process = RedisServer.StartProcess(new ProcessStartInfo(command[0], command.Skip(1)) { RedirectStandardOutput = true, RedirectStandardError = true });
        using var killing = cancellation.Register(() => process.Kill(entireProcessTree: true));
        var errors = process.StandardError.ReadToEndAsync(CancellationToken.None);
        var results = new List<ArraySnapshot>();
        var output = process.StandardOutput.BaseStream;
        var record = new byte[24];
        while (output.ReadAtLeast(record, record.Length, throwOnEndOfStream: false) == record.Length)
        {
            results.Add(new ArraySnapshot(Time(0), Time(8), BinaryPrimitives.ReadInt64LittleEndian(record.AsSpan(16)) == 0));
            progress?.Invoke((double)results.Count / snapshots);
        }

        process.WaitForExit();
        cancellation.ThrowIfCancellationRequested();
        if (process.ExitCode != 0 || results.Count != snapshots)
            throw new BenchException(string.Create(CultureInfo.InvariantCulture, $"the snapshot program ended early (status {process.ExitCode}, {results.Count} of {snapshots} snapshots): {errors.Result.Trim()}"));
        return results;

        TimeSpan Time(int at) => TimeSpan.FromTicks(BinaryPrimitives.ReadInt64LittleEndian(record.AsSpan(at)) / TimeSpan.NanosecondsPerTick);
    }

    /// <summary>The ELF file: position-independent, one segment of code, none of data; it keeps everything in registers and on the stack.</summary>
    public static byte[] Build(long bytes, int snapshots)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(bytes, 4096);
        ArgumentOutOfRangeException.ThrowIfNotEqual(bytes % 4096, 0);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(snapshots, PageWords);
        var code = Assemble(bytes, snapshots);

        var file = new byte[HeaderSize + code.Length];
        var span = file.AsSpan();
        ((ReadOnlySpan<byte>)[0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1]).CopyTo(span);
        Half(16, 3);
        Half(18, 62);
        Word(20, 1);
        Long(24, (long)Base + HeaderSize);
        Long(32, 64);
        Half(52, 64);
        Half(54, 56);
        Half(56, 2);
        ProgramHeader(64, type: 1, flags: 5, size: file.Length, align: 0x1000);
        // PT_GNU_STACK without X: the stack is not executable.
        ProgramHeader(64 + 56, type: 0x6474e551, flags: 6, size: 0, align: 16);
        code.CopyTo(span[HeaderSize..]);
        return file;

        void Half(int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(at), value);
        void Word(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), value);
        void Long(int at, long value) => BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(at), value);
        void ProgramHeader(int at, uint type, uint flags, long size, long align)
        {
            Word(at, type);
            Word(at + 4, flags);
            Long(at + 16, (long)(type == 1 ? Base : 0));
            Long(at + 24, (long)(type == 1 ? Base : 0));
            Long(at + 32, size);
            Long(at + 40, size);
            Long(at + 48, align);
        }
    }

    // rbx: the array; rbp: its end; r12: the round; r13: K; r14: the child; r15: a time. On the stack: record (24 bytes) at 0, timespec at 32.
    private static byte[] Assemble(long bytes, int snapshots)
    {
        var c = new Assembler(64);
        var round = c.CreateLabel();
        var done = c.CreateLabel();
        var fail = c.CreateLabel();
        var child = c.CreateLabel();
        var clock = c.CreateLabel();
        var fill = c.CreateLabel();
        var mark = c.CreateLabel();
        var word = c.CreateLabel();
        var plain = c.CreateLabel();

        c.sub(rsp, 64);
        c.mov(eax, SYS_mmap);
        c.xor(edi, edi);
        c.mov(rsi, bytes);
        c.mov(edx, 3);
        c.mov(r10d, 0x22);
        c.mov(r8, -1);
        c.xor(r9d, r9d);
        c.syscall();
        c.cmp(rax, -4095);
        c.jae(fail);
        c.mov(rbx, rax);
        c.mov(rbp, bytes);
        c.add(rbp, rbx);
        c.mov(r13, K);

        c.mov(rdi, rbx);
        c.xor(eax, eax);
        c.Label(ref fill);
        c.mov(__qword_ptr[rdi], rax);
        c.add(rax, r13);
        c.add(rdi, 8);
        c.cmp(rdi, rbp);
        c.jb(fill);

        c.xor(r12d, r12d);
        c.Label(ref round);
        c.cmp(r12, snapshots);
        c.jae(done);

        c.call(clock);
        c.mov(r15, rax);
        c.mov(eax, SYS_fork);
        c.syscall();
        c.test(rax, rax);
        c.jz(child);
        c.js(fail);
        c.mov(r14, rax);
        c.call(clock);
        c.mov(rcx, rax);
        c.sub(rcx, r15);
        c.mov(__qword_ptr[rsp], rcx);
        c.mov(r15, rax);

        c.lea(rdi, __[rbx + r12 * 8]);
        c.Label(ref mark);
        c.not(__qword_ptr[rdi]);
        c.add(rdi, 4096);
        c.cmp(rdi, rbp);
        c.jb(mark);
        c.call(clock);
        c.sub(rax, r15);
        c.mov(__qword_ptr[rsp + 8], rax);

        c.mov(__qword_ptr[rsp + 16], 0);
        c.mov(eax, SYS_wait4);
        c.mov(rdi, r14);
        c.lea(rsi, __[rsp + 16]);
        c.xor(edx, edx);
        c.xor(r10d, r10d);
        c.syscall();
        c.cmp(rax, r14);
        c.jne(fail);
        c.mov(eax, SYS_write);
        c.mov(edi, 1);
        c.mov(rsi, rsp);
        c.mov(edx, 24);
        c.syscall();
        c.cmp(rax, 24);
        c.jne(fail);
        c.inc(r12);
        c.jmp(round);

        c.Label(ref done);
        c.xor(edi, edi);
        c.mov(eax, SYS_exit);
        c.syscall();

        c.Label(ref fail);
        c.mov(edi, 1);
        c.mov(eax, SYS_exit);
        c.syscall();

        // The child: rdi walks the words, rax is the expected plain value, rdx the word's index in its page.
        c.Label(ref child);
        c.mov(rdi, rbx);
        c.xor(eax, eax);
        c.Label(ref word);
        c.mov(rcx, rdi);
        c.sub(rcx, rbx);
        c.shr(rcx, 3);
        c.and(ecx, PageWords - 1);
        c.mov(rsi, __qword_ptr[rdi]);
        c.cmp(rcx, r12);
        c.jae(plain);
        c.not(rsi);
        c.Label(ref plain);
        c.cmp(rsi, rax);
        c.jne(fail);
        c.add(rax, r13);
        c.add(rdi, 8);
        c.cmp(rdi, rbp);
        c.jb(word);
        c.jmp(done);

        // rax = CLOCK_MONOTONIC in nanoseconds. The call pushed 8 bytes: the timespec is at rsp + 40.
        c.Label(ref clock);
        c.mov(eax, SYS_clock_gettime);
        c.mov(edi, 1);
        c.lea(rsi, __[rsp + 40]);
        c.syscall();
        c.mov(rax, __qword_ptr[rsp + 40]);
        c.imul(rax, rax, 1_000_000_000);
        c.add(rax, __qword_ptr[rsp + 48]);
        c.ret();

        using var stream = new MemoryStream();
        c.Assemble(new StreamCodeWriter(stream), Base + HeaderSize);
        return stream.ToArray();
    }
}
