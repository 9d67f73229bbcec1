using System.Buffers.Text;
using System.Text;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Syscalls;

/// <summary>
/// Paths that mean the calling process. To the host kernel that is the hypervisor, so:
/// <list type="bullet">
/// <item>the program link of the process (/proc/self/exe, /proc/thread-self/exe, /proc/PID/exe) becomes the program's path where the call follows links;</item>
/// <item>a reserved descriptor under /proc/self/fd or /dev/fd does not exist (a listing of the directory still shows it);</item>
/// <item>a snapshot that opens one of its process's settings (clear_refs, ...) for writing gets /dev/null: they are the hypervisor's and main's too;</item>
/// <item>oom_score_adj of a snapshot is that of its own process in the host, which has its id;</item>
/// <item>/proc/self/mem is not opened for writing, which would go past the page table (rule 1), and not at all in a snapshot, whose memory it is not (rule 6);</item>
/// <item>/proc/self/maps, smaps and smaps_rollup, once opened, are replaced by lists of the program's own memory (<see cref="MemoryReportOf"/>);</item>
/// <item>in a snapshot, /proc/self, /dev/fd and /dev/stdin, stdout, stderr become /proc/TID: its host thread; so does what a thread alone has (fd, cwd, ...) of /proc/PID.</item>
/// </list>
/// Only these spellings are known; a path relative to an open /proc directory is not.
/// </summary>
public static unsafe class SyscallPaths
{
    private const int PathMax = 4096;

    /// <summary>O_NOFOLLOW: a path description that has it is that of open or openat.</summary>
    private const int OpenNoFollow = 0x20000;

    /// <summary>In place of an offset: the standard descriptor with this number plus 0, 1 or 2.</summary>
    private const int Standard = 1 << 16;

    private enum Meaning
    {
        Ordinary,
        ProgramLink,
        ReservedDescriptor,

        /// <summary>Below the directory of the process in /proc: the rest starts at <c>tail</c>.</summary>
        OwnDirectory,

        /// <summary>A file in the directory of the process through which the whole host process would be changed.</summary>
        ProcessSetting,

        /// <summary>oom_score_adj, oom_score or oom_adj of the process, or of another of the program.</summary>
        MemoryPriority,

        /// <summary>Below the directory of another process: what a snapshot's thread has to itself.</summary>
        ChildDirectory,

        /// <summary>The memory of the process as a file.</summary>
        Memory,

        /// <summary>A list of the memory of the process.</summary>
        MemoryList,

        /// <summary>/dev/fd or one of the standard descriptors.</summary>
        OwnDescriptor,
    }

    /// <summary>The file that a path given to execve means: the program itself for its link in /proc, otherwise null.</summary>
    public static string? ResolveProgram(ISyscallContext context, ReadOnlySpan<byte> path) =>
        MeaningOf(context, path, out _, out _) == Meaning.ProgramLink ? context.ProgramPath : null;

    /// <summary>The list of the process's memory that a path means; null for any other file.</summary>
    internal static MemoryReport? MemoryReportOf(ISyscallContext context, ulong address)
    {
        Span<byte> start = stackalloc byte[64];
        var length = ReadStart(context, address, start);
        var path = start[..length];
        if (!path.StartsWith("/proc/"u8) || MeaningOf(context, path, out _, out _) != Meaning.MemoryList) return null;
        return path.EndsWith("/smaps"u8) ? MemoryReport.Smaps : path.EndsWith("/maps"u8) ? MemoryReport.Maps : MemoryReport.Rollup;
    }

    /// <summary>"stat" or "status" for a path that means this file of a process whose host thread has another id; null for any other.</summary>
    internal static string? IdentityReportOf(ISyscallContext context, ulong address)
    {
        if (!context.Translates) return null;
        Span<byte> start = stackalloc byte[64];
        var length = ReadStart(context, address, start);
        var path = start[..length];
        if (!path.StartsWith("/proc/"u8) || MeaningOf(context, path, out var tail, out _) != Meaning.OwnDirectory || tail < 0) return null;
        var name = path[tail..].SequenceEqual("/stat"u8) ? "stat" : path[tail..].SequenceEqual("/status"u8) ? "status" : null;
        return name is null || context.HostIdOf(context.ProcessId) == 0 ? null : name;
    }

    /// <summary>Main: address of another path when the program's must not be used, else 0; negative errno.</summary>
    internal static long Replace(ISyscallContext context, in ArgumentDescription description, in SyscallArguments arguments, ulong address, out ulong replaced)
    {
        replaced = 0;
        // The paths that matter are short. One that is not readable is the kernel's to refuse.
        Span<byte> start = stackalloc byte[64];
        var length = ReadStart(context, address, start);
        if (length < 5 || start[0] != '/') return 0;
        if (!start.StartsWith("/proc/"u8) && !start.StartsWith("/dev/"u8)) return 0;
        return Resolve(context, in description, in arguments, start[..length], out replaced);
    }

    /// <summary>A snapshot: the path, in the arena.</summary>
    internal static long Stage(ISyscallContext context, in ArgumentDescription description, in SyscallArguments arguments, ulong address, out ulong staged)
    {
        var error = StageText(context, address, PathMax, out staged);
        if (error < 0) return error;
        var path = new ReadOnlySpan<byte>((void*)staged, (int)error);
        if (!path.StartsWith("/proc/"u8) && !path.StartsWith("/dev/"u8)) return 0;
        error = Resolve(context, in description, in arguments, path, out var replaced);
        if (replaced != 0) staged = replaced;
        return error;
    }

    /// <summary>
    /// A string, in the arena; returns its length. One without an end within the limit is cut there: the limits are such that the
    /// kernel then gives its own error.
    /// </summary>
    internal static long StageText(ISyscallContext context, ulong address, int limit, out ulong staged)
    {
        var text = context.Arena.Allocate(limit + 1);
        staged = (ulong)text;
        var length = 0;
        while (length < limit)
        {
            // Never across a page that the string may not reach.
            var piece = Math.Min(limit - length, 4096 - (int)(address + (ulong)length & 4095));
            // Most paths are short: do not copy the rest of the page for them.
            if (length == 0) piece = Math.Min(piece, 256);
            var target = new Span<byte>(text + length, piece);
            if (!context.TryRead(address + (ulong)length, target)) return -Errno.EFAULT;
            var end = target.IndexOf((byte)0);
            if (end >= 0) return length + end;
            length += piece;
        }
        text[limit] = 0;
        return limit;
    }

    /// <summary>readlink of a link that names the process: its target, or null.</summary>
    internal static byte[]? ReadLink(ISyscallContext context, ulong address)
    {
        Span<byte> start = stackalloc byte[64];
        var length = ReadStart(context, address, start);
        if (length < 10 || !start.StartsWith("/proc/"u8)) return null;
        var path = start[..length];
        if (path.SequenceEqual("/proc/self"u8) && context.Translates) return Encoding.ASCII.GetBytes(context.ProcessId.ToString());
        return MeaningOf(context, path, out _, out _) == Meaning.ProgramLink ? Encoding.UTF8.GetBytes(context.ProgramPath) : null;
    }

    private static long Resolve(ISyscallContext context, in ArgumentDescription description, in SyscallArguments arguments, ReadOnlySpan<byte> path, out ulong replaced)
    {
        replaced = 0;
        switch (MeaningOf(context, path, out var tail, out var subject))
        {
            case Meaning.ReservedDescriptor:
                return -Errno.ENOENT;

            case Meaning.ProgramLink when description.Follows && (description.Size == 0 || ((int)arguments[description.LengthArgument] & description.Size) == 0):
                var program = context.ProgramPath;
                var room = Encoding.UTF8.GetMaxByteCount(program.Length) + 1;
                var copy = context.Arena.Allocate(room);
                var written = Encoding.UTF8.GetBytes(program, new Span<byte>(copy, room));
                copy[written] = 0;
                replaced = (ulong)copy;
                return 0;

            case Meaning.Memory when context.Translates || description.Follows && description.Size == 0
                || description.Size == OpenNoFollow && (arguments[description.LengthArgument] & 3) != 0:
                SyscallWarnings.Once("/proc/self/mem cannot be used to change memory; the program gets EACCES");
                return -Errno.EACCES;

            // A path with a flags argument of two access bits is that of open.
            case Meaning.ProcessSetting when context.Translates && description.Size == OpenNoFollow && (arguments[description.LengthArgument] & 3) != 0:
                copy = context.Arena.Allocate(16);
                "/dev/null\0"u8.CopyTo(new Span<byte>(copy, 16));
                replaced = (ulong)copy;
                return 0;

            case Meaning.MemoryPriority when description.Size == OpenNoFollow && (arguments[description.LengthArgument] & 3) != 0
                && (subject == context.ProcessId ? context.Translates : context.HostIdOf(subject) != 0) && !context.PrepareSettings(subject):
                copy = context.Arena.Allocate(16);
                "/dev/null\0"u8.CopyTo(new Span<byte>(copy, 16));
                replaced = (ulong)copy;
                return 0;

            case Meaning.MemoryPriority when context.Translates && tail >= 0:
                replaced = BelowProc(context, subject, path[tail..]);
                return 0;

            case Meaning.ChildDirectory when context.HostIdOf(subject) is not 0 and var thread:
                replaced = BelowProc(context, thread, path[tail..]);
                return 0;

            case Meaning.OwnDescriptor or Meaning.OwnDirectory or Meaning.ProgramLink or Meaning.ProcessSetting or Meaning.MemoryList when context.Translates && tail >= 0:
                var rest = tail switch
                {
                    Standard => "/0"u8,
                    Standard + 1 => "/1"u8,
                    Standard + 2 => "/2"u8,
                    _ => path[tail..],
                };
                var own = HostIdOrOwn(context);
                replaced = path.StartsWith("/dev/"u8) ? BelowProc(context, own, [.. "/fd"u8, .. rest]) : BelowProc(context, own, WithHostTask(context, rest, own));
                return 0;

            default:
                return 0;
        }
    }

    private static int HostIdOrOwn(ISyscallContext context) => context.HostIdOf(context.ProcessId) is not 0 and var thread ? thread : context.ProcessId;

    /// <summary>A path in the directory of a process in /proc, in the arena.</summary>
    private static ulong BelowProc(ISyscallContext context, int process, ReadOnlySpan<byte> rest)
    {
        var copy = context.Arena.Allocate(64 + rest.Length);
        var target = new Span<byte>(copy, 64 + rest.Length);
        "/proc/"u8.CopyTo(target);
        Utf8Formatter.TryFormat(process, target[6..], out var digits);
        rest.CopyTo(target[(6 + digits)..]);
        target[6 + digits + rest.Length] = 0;
        return (ulong)copy;
    }

    /// <summary>The first thread of a snapshot under /task, which has the process' id to the program and another in the host.</summary>
    private static ReadOnlySpan<byte> WithHostTask(ISyscallContext context, ReadOnlySpan<byte> rest, int hostThread)
    {
        if (!rest.StartsWith("/task/"u8) || !Utf8Parser.TryParse(rest[6..], out int thread, out var digits) || thread != context.ProcessId)
            return rest;
        return (byte[])[.. "/task/"u8, .. Encoding.ASCII.GetBytes(hostThread.ToString(System.Globalization.CultureInfo.InvariantCulture)), .. rest[(6 + digits)..]];
    }

    /// <summary>
    /// What a path means. <paramref name="tail"/>: where the rest begins that follows "/proc/self" or "/dev/fd"; -1 when the path needs no other
    /// beginning. <paramref name="subject"/>: the process it is about.
    /// </summary>
    private static Meaning MeaningOf(ISyscallContext context, ReadOnlySpan<byte> path, out int tail, out int subject)
    {
        tail = -1;
        subject = context.ProcessId;
        if (path.StartsWith("/dev/"u8))
        {
            if (path.SequenceEqual("/dev/stdin"u8)) tail = Standard;
            else if (path.SequenceEqual("/dev/stdout"u8)) tail = Standard + 1;
            else if (path.SequenceEqual("/dev/stderr"u8)) tail = Standard + 2;
            else if (path.StartsWith("/dev/fd"u8) && (path.Length == 7 || path[7] == '/')) tail = 7;
            else return Meaning.Ordinary;
            return tail == 7 && path.Length > 8 && IsReserved(context, path[8..]) ? Meaning.ReservedDescriptor : Meaning.OwnDescriptor;
        }

        if (!path.StartsWith("/proc/"u8)) return Meaning.Ordinary;
        var process = path[6..];
        int length;
        var self = false;
        if (process.StartsWith("self"u8) && (process.Length == 4 || process[4] == '/'))
        {
            length = 4;
            self = true;
        }
        else if (process.StartsWith("thread-self"u8) && (process.Length == 11 || process[11] == '/'))
        {
            length = 11;
        }
        else if (Utf8Parser.TryParse(process, out int pid, out length) && (length == process.Length || process[length] == '/'))
        {
            if (pid != context.ProcessId)
            {
                subject = pid;
                tail = 6 + length;
                return MeaningOfOther(process[length..]);
            }

            self = true;
        }
        else return Meaning.Ordinary;

        var rest = process[length..];
        if (self) tail = 6 + length;
        if (rest.SequenceEqual("/exe"u8)) return Meaning.ProgramLink;
        if (rest.SequenceEqual("/mem"u8) || rest.StartsWith("/task/"u8) && rest.EndsWith("/mem"u8)) return Meaning.Memory;
        var file = rest.StartsWith("/task/"u8) ? rest[rest.LastIndexOf((byte)'/')..] : rest;
        if (file.SequenceEqual("/maps"u8) || file.SequenceEqual("/smaps"u8) || file.SequenceEqual("/smaps_rollup"u8)) return Meaning.MemoryList;
        if (IsMemoryPriority(rest))
        {
            tail = 6 + length;
            return Meaning.MemoryPriority;
        }

        if (rest.SequenceEqual("/coredump_filter"u8) || rest.SequenceEqual("/autogroup"u8) || rest.SequenceEqual("/clear_refs"u8))
            return Meaning.ProcessSetting;
        if (rest.StartsWith("/fd/"u8) && IsReserved(context, rest[4..])) return Meaning.ReservedDescriptor;
        if (rest.StartsWith("/fdinfo/"u8) && IsReserved(context, rest[8..])) return Meaning.ReservedDescriptor;
        return self ? Meaning.OwnDirectory : Meaning.Ordinary;
    }

    private static bool IsMemoryPriority(ReadOnlySpan<byte> rest) => rest.SequenceEqual("/oom_score_adj"u8) || rest.SequenceEqual("/oom_adj"u8) || rest.SequenceEqual("/oom_score"u8);

    /// <summary>What is below the directory of another process. If that is a snapshot, its thread has what the process in the host, that only stands for it, has not.</summary>
    private static Meaning MeaningOfOther(ReadOnlySpan<byte> rest)
    {
        if (IsMemoryPriority(rest)) return Meaning.MemoryPriority;
        if (rest.Length == 0) return Meaning.Ordinary;
        var end = rest[1..].IndexOf((byte)'/');
        var name = end < 0 ? rest[1..] : rest.Slice(1, end);
        return name.SequenceEqual("fd"u8) || name.SequenceEqual("fdinfo"u8) || name.SequenceEqual("cwd"u8) || name.SequenceEqual("root"u8) || name.SequenceEqual("exe"u8)
            || name.SequenceEqual("environ"u8) || name.SequenceEqual("maps"u8) || name.SequenceEqual("smaps"u8) || name.SequenceEqual("smaps_rollup"u8) || name.SequenceEqual("io"u8)
            ? Meaning.ChildDirectory : Meaning.Ordinary;
    }

    private static bool IsReserved(ISyscallContext context, ReadOnlySpan<byte> name) =>
        Utf8Parser.TryParse(name, out int descriptor, out var used) && (used == name.Length || name[used] == '/') && context.IsReservedDescriptor(descriptor);

    /// <summary>Reads what there is of a short string; returns its length, or that of the buffer when it is longer.</summary>
    private static int ReadStart(ISyscallContext context, ulong address, Span<byte> start)
    {
        var length = Math.Min(start.Length, 4096 - (int)(address & 4095));
        if (!context.TryRead(address, start[..length])) return 0;
        var end = start[..length].IndexOf((byte)0);
        if (end >= 0) return end;
        if (length == start.Length) return length;
        if (!context.TryRead(address + (ulong)length, start[length..])) return length;
        end = start.IndexOf((byte)0);
        return end >= 0 ? end : start.Length;
    }
}
