using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Runtime.InteropServices;
using System.Text;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Syscalls;

/// <summary>
/// Renders system calls in the manner of strace, from the table's descriptions. Memory is read when the line is made: after the call,
/// so inputs that the call overwrote show their new content.
/// </summary>
public static class SyscallTrace
{
    private const int MostText = 32;
    private const int MostElements = 16;
    private const int PathMax = 4096;

    /// <summary>A call as it begins: outputs are addresses still. For calls that wait, or never return.</summary>
    public static string Enter(ISyscallContext context, int thread, long number, in SyscallArguments arguments)
    {
        var line = new StringBuilder();
        AppendCall(line, context, thread, number, in arguments, null);
        return line.Append(" <unfinished ...>").ToString();
    }

    /// <summary>A call with its result (negative errno on failure); null for one that does not return.</summary>
    public static string Format(ISyscallContext context, int thread, long number, in SyscallArguments arguments, long? result)
    {
        var line = new StringBuilder();
        AppendCall(line, context, thread, number, in arguments, result);
        line.Append(") = ");
        if (result is { } value) AppendResult(line, number, value);
        else line.Append('?');
        return line.ToString();
    }

    private static void AppendCall(StringBuilder line, ISyscallContext context, int thread, long number, in SyscallArguments arguments, long? result)
    {
        line.Append(CultureInfo.InvariantCulture, $"[{thread}] ").Append(SyscallTable.NameOf(number)).Append('(');
        var call = SyscallTable.Find(number, in arguments);
        var count = call?.Arguments.Length ?? 0;
        if (call is null or { Route: SyscallRoute.Unknown } or { Route: SyscallRoute.Constant, Arguments.Length: 0 })
        {
            // Nothing is known of its arguments.
            for (var i = 0; i < 6; i++) line.Append(i == 0 ? "" : ", ").Append(Hex(arguments[i]));
            return;
        }

        // The mode of open is there only with a flag that creates.
        if (number == SyscallNumber.open && (arguments.A1 & 0x400040) == 0 || number == SyscallNumber.openat && (arguments.A2 & 0x400040) == 0) count--;
        for (var i = 0; i < count; i++)
        {
            if (i > 0) line.Append(", ");
            AppendArgument(line, context, call, in arguments, i, result);
        }
    }

    private static void AppendResult(StringBuilder line, long number, long result)
    {
        if (result is < 0 and >= -4095)
        {
            var error = (int)-result;
            line.Append(error >= Errno.ERESTARTSYS ? "? " : "-1 ");
            line.Append(ErrnoText.NameOf(error)).Append(" (").Append(ErrnoText.TextOf(error)).Append(')');
        }
        else if (number is SyscallNumber.mmap or SyscallNumber.mremap or SyscallNumber.brk or SyscallNumber.shmat)
        {
            line.Append(Hex((ulong)result));
        }
        else
        {
            line.Append(result);
        }
    }

    private static void AppendArgument(StringBuilder line, ISyscallContext context, SyscallDescription call, in SyscallArguments arguments, int index, long? result)
    {
        ref readonly var description = ref call.Arguments[index];
        var value = arguments[index];
        switch (description.Kind)
        {
            case ArgumentKind.Value:
                AppendValue(line, call, in arguments, index, value);
                return;
            case ArgumentKind.Descriptor:
                line.Append((int)value == -100 ? "AT_FDCWD" : ((int)value).ToString(CultureInfo.InvariantCulture));
                return;
        }

        if (value == 0)
        {
            line.Append("NULL");
            return;
        }
        switch (description.Kind)
        {
            case ArgumentKind.Path:
                // Whole, as strace does: half a path helps nobody.
                AppendString(line, context, value, PathMax, PathMax);
                return;
            case ArgumentKind.Text:
                AppendString(line, context, value, (int)description.Limit, MostText);
                return;
            case ArgumentKind.VectorIn or ArgumentKind.VectorOut:
                var limit = description.Kind == ArgumentKind.VectorIn ? long.MaxValue : result ?? -1;
                AppendVectors(line, context, value, arguments[description.LengthArgument], limit);
                return;
            case ArgumentKind.MessageIn or ArgumentKind.MessageOut:
                AppendMessage(line, context, value, description.Kind == ArgumentKind.MessageIn ? long.MaxValue : result ?? -1);
                return;
            case ArgumentKind.MessagesIn or ArgumentKind.MessagesOut:
                AppendMessages(line, context, value, (uint)arguments[description.LengthArgument], description.Kind == ArgumentKind.MessagesOut, result);
                return;
            case ArgumentKind.SignalMask:
                AppendMemory(line, context, MemoryFormat.SignalSet, value, 8);
                return;
            case ArgumentKind.SignalMaskPair:
                line.Append(Hex(value));
                return;
        }

        // An output means something once the call has succeeded, or was interrupted where it tells the time left.
        var known = description.Kind != ArgumentKind.Out || result >= 0;
        var length = SyscallMarshaller.LengthOf(context, in description, in arguments, value);
        if (result is { } written && description.Kind == ArgumentKind.Out)
        {
            if (description.CopyBack == CopyBack.Result) length = Math.Min(length, written);
            else if (description.CopyBack == CopyBack.ResultElements) length = Math.Min(length, written * description.Size);
        }
        if (!known || length < 0) line.Append(Hex(value));
        else AppendMemory(line, context, description.Memory, value, length, description.Length == LengthSource.Fixed);
    }

    private static void AppendValue(StringBuilder line, SyscallDescription call, in SyscallArguments arguments, int index, ulong value)
    {
        switch (call.Arguments[index].Format)
        {
            case ValueFormat.Int: line.Append((int)value); break;
            case ValueFormat.Long: line.Append((long)value); break;
            case ValueFormat.Unsigned: line.Append(value); break;
            case ValueFormat.Mode: AppendOctal(line, (uint)value); break;
            case ValueFormat.OpenFlags:
                line.Append((value & 3) switch { 0 => "O_RDONLY", 1 => "O_WRONLY", 2 => "O_RDWR", _ => "O_ACCMODE" });
                value = (uint)value & ~3u;
                if (value != 0) AppendFlags(line.Append('|'), TraceNames.OpenFlags, value);
                break;
            case ValueFormat.CreateFlags: AppendFlags(line, TraceNames.OpenFlags, (uint)value); break;
            case ValueFormat.AtFlags: AppendFlags(line, TraceNames.AtFlags, (uint)value); break;
            case ValueFormat.AccessMode: AppendFlags(line, TraceNames.AccessModes, (uint)value, "F_OK"); break;
            case ValueFormat.Protection: AppendFlags(line, TraceNames.Protections, value, "PROT_NONE"); break;
            case ValueFormat.MapFlags:
                line.Append((value & 3) switch { 1 => "MAP_SHARED", 2 => "MAP_PRIVATE", 3 => "MAP_SHARED_VALIDATE", _ => "MAP_FILE" });
                if ((value & ~3ul) != 0) AppendFlags(line.Append('|'), TraceNames.MapFlags, value & ~3ul);
                break;
            case ValueFormat.MemoryAdvice: AppendName(line, TraceNames.MemoryAdvices, (uint)value); break;
            case ValueFormat.SocketFamily: AppendName(line, TraceNames.SocketFamilies, (uint)value); break;
            case ValueFormat.SocketType:
                if ((value & 0xf) != 0) AppendName(line, TraceNames.SocketTypes, value & 0xf);
                if ((value & 0xf) != 0 && (uint)(value & ~0xful) != 0) line.Append('|');
                if ((value & 0xf) == 0 || (uint)(value & ~0xful) != 0) AppendFlags(line, TraceNames.SocketTypeFlags, (uint)value & ~0xfu);
                break;
            case ValueFormat.SocketLevel: AppendName(line, TraceNames.SocketLevels, (uint)value); break;
            case ValueFormat.SocketOption:
                var level = (int)arguments.A1;
                AppendName(line, level == 1 ? TraceNames.SocketOptions : level == 6 ? TraceNames.TcpOptions : [], (uint)value, decimalNumber: true);
                break;
            case ValueFormat.MessageFlags: AppendFlags(line, TraceNames.MessageFlags, (uint)value); break;
            case ValueFormat.CloneFlags:
                // The low byte is the signal the parent gets.
                var signal = value & 0xff;
                if (signal == 0 || value > 0xff) AppendFlags(line, TraceNames.CloneFlags, value & ~0xfful);
                if (signal != 0) AppendSignal(value > 0xff ? line.Append('|') : line, signal);
                break;
            case ValueFormat.Signal: AppendSignal(line, (uint)value); break;
            case ValueFormat.SignalAction: AppendName(line, TraceNames.SignalActions, (uint)value); break;
            case ValueFormat.EpollOperation: AppendName(line, TraceNames.EpollOperations, (uint)value); break;
            case ValueFormat.Whence: AppendName(line, TraceNames.Whences, (uint)value); break;
            case ValueFormat.Clock: AppendName(line, TraceNames.Clocks, (uint)value); break;
            case ValueFormat.FcntlCommand: AppendName(line, TraceNames.FcntlCommands, (uint)value); break;
            case ValueFormat.IoctlRequest: AppendName(line, TraceNames.IoctlRequests, (uint)value); break;
            case ValueFormat.PrctlOption: AppendName(line, TraceNames.PrctlOptions, (uint)value); break;
            case ValueFormat.FutexOperation:
                AppendName(line, TraceNames.FutexOperations, (uint)value & ~0x180u);
                if ((value & 0x80) != 0) line.Append("_PRIVATE");
                if ((value & 0x100) != 0) line.Append("|FUTEX_CLOCK_REALTIME");
                break;
            case ValueFormat.ArchOption: AppendName(line, TraceNames.ArchOptions, (uint)value); break;
            case ValueFormat.Resource: AppendName(line, TraceNames.Resources, (uint)value); break;
            case ValueFormat.WaitOptions: AppendFlags(line, TraceNames.WaitOptions, (uint)value); break;
            case ValueFormat.LockOperation: AppendFlags(line, TraceNames.LockOperations, (uint)value); break;
            case ValueFormat.DescriptorFlags: line.Append(value == 1 ? "FD_CLOEXEC" : Hex(value)); break;
            case ValueFormat.RandomFlags: AppendFlags(line, TraceNames.RandomFlags, (uint)value); break;
            case ValueFormat.Shutdown: AppendName(line, TraceNames.Shutdowns, (uint)value); break;
            default:
                // The address argument of mmap and its like reads better as NULL.
                line.Append(value == 0 && call.Number is (SyscallNumber.mmap or SyscallNumber.brk) && index == 0 ? "NULL" : Hex(value));
                break;
        }
    }

    private static void AppendMemory(StringBuilder line, ISyscallContext context, MemoryFormat format, ulong address, long length, bool isString = false)
    {
        const int MostBytes = 4096;
        if (format == MemoryFormat.Text)
        {
            if (isString) AppendString(line, context, address, (int)length, MostText);
            else AppendData(line, context, address, length);
            return;
        }
        if (format == MemoryFormat.StringArray)
        {
            AppendStrings(line, context, address);
            return;
        }
        if (format == MemoryFormat.Address || length > MostBytes && format == MemoryFormat.SocketAddress)
        {
            line.Append(Hex(address));
            return;
        }

        var bytes = new byte[Math.Min(length, MostBytes)];
        if (!context.TryRead(address, bytes))
        {
            line.Append(Hex(address));
            return;
        }
        var words = MemoryMarshal.Cast<byte, long>(bytes.AsSpan());
        var ints = MemoryMarshal.Cast<byte, int>(bytes.AsSpan());
        switch (format)
        {
            case MemoryFormat.Timespec when words.Length >= 2: line.Append(CultureInfo.InvariantCulture, $"{{tv_sec={words[0]}, tv_nsec={words[1]}}}"); break;
            case MemoryFormat.Timeval when words.Length >= 2: line.Append(CultureInfo.InvariantCulture, $"{{tv_sec={words[0]}, tv_usec={words[1]}}}"); break;
            case MemoryFormat.Int when ints.Length >= 1: line.Append('[').Append(ints[0]).Append(']'); break;
            case MemoryFormat.Long when words.Length >= 1: line.Append('[').Append(words[0]).Append(']'); break;
            case MemoryFormat.IntPair when ints.Length >= 2: line.Append('[').Append(ints[0]).Append(", ").Append(ints[1]).Append(']'); break;
            case MemoryFormat.IntArray when bytes.Length % 4 == 0:
                AppendList(line, ints.Length, ints, static (line, ints, i) => line.Append(ints[i]));
                break;
            case MemoryFormat.SocketAddress: AppendSocketAddress(line, bytes); break;
            case MemoryFormat.EpollEvents:
                AppendList(line, bytes.Length / KernelStructSize.EpollEvent, bytes, static (line, bytes, i) =>
                {
                    var @event = bytes[(i * KernelStructSize.EpollEvent)..];
                    AppendFlags(line.Append("{events="), TraceNames.EpollEvents, BinaryPrimitives.ReadUInt32LittleEndian(@event));
                    line.Append(", data=").Append(Hex(BinaryPrimitives.ReadUInt64LittleEndian(@event[4..]))).Append('}');
                });
                break;
            case MemoryFormat.PollDescriptors:
                AppendList(line, bytes.Length / KernelStructSize.Pollfd, bytes, static (line, bytes, i) =>
                {
                    var entry = bytes[(i * KernelStructSize.Pollfd)..];
                    line.Append("{fd=").Append(BinaryPrimitives.ReadInt32LittleEndian(entry)).Append(", events=");
                    AppendFlags(line, TraceNames.PollEvents, BinaryPrimitives.ReadUInt16LittleEndian(entry[4..]));
                    AppendFlags(line.Append(", revents="), TraceNames.PollEvents, BinaryPrimitives.ReadUInt16LittleEndian(entry[6..]));
                    line.Append('}');
                });
                break;
            case MemoryFormat.DescriptorSet:
                line.Append('[');
                var any = false;
                for (var i = 0; i < bytes.Length * 8; i++)
                {
                    if ((bytes[i / 8] >> i % 8 & 1) == 0) continue;
                    if (any) line.Append(' ');
                    line.Append(i);
                    any = true;
                }
                line.Append(']');
                break;
            case MemoryFormat.Stat when bytes.Length >= KernelStructSize.Stat:
                var mode = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(24));
                line.Append("{st_mode=").Append(TraceNames.Find(TraceNames.FileTypes, mode & 0xf000) ?? Hex(mode & 0xf000)).Append('|');
                AppendOctal(line, mode & 0xfff);
                line.Append(", st_size=").Append(words[6]).Append(", ...}");
                break;
            case MemoryFormat.SignalSet when words.Length >= 1: AppendSignalSet(line, (ulong)words[0]); break;
            case MemoryFormat.SignalAction when words.Length >= 4:
                // The kernel's struct: handler, flags, restorer, mask.
                line.Append("{sa_handler=").Append(words[0] switch { 0 => "SIG_DFL", 1 => "SIG_IGN", _ => Hex((ulong)words[0]) }).Append(", sa_mask=");
                AppendSignalSet(line, (ulong)words[3]);
                AppendFlags(line.Append(", sa_flags="), TraceNames.SignalActionFlags, (ulong)words[1]);
                line.Append('}');
                break;
            case MemoryFormat.Limit when words.Length >= 2:
                AppendLimit(line.Append("{rlim_cur="), words[0]);
                AppendLimit(line.Append(", rlim_max="), words[1]);
                line.Append('}');
                break;
            default: AppendEscaped(line, bytes, MostText); break;
        }
    }

    private delegate void AppendElement<T>(StringBuilder line, ReadOnlySpan<T> values, int index);

    private static void AppendList<T>(StringBuilder line, int count, ReadOnlySpan<T> values, AppendElement<T> append)
    {
        line.Append('[');
        for (var i = 0; i < count && i < MostElements; i++)
        {
            if (i > 0) line.Append(", ");
            append(line, values, i);
        }
        if (count > MostElements) line.Append(", ...");
        line.Append(']');
    }

    /// <summary>argv: pointers up to a null one.</summary>
    private static void AppendStrings(StringBuilder line, ISyscallContext context, ulong address)
    {
        line.Append('[');
        for (var i = 0; ; i++, address += 8)
        {
            ulong text = 0;
            if (i == MostElements || !context.TryRead(address, MemoryMarshal.AsBytes(new Span<ulong>(ref text))))
            {
                line.Append(i > 0 ? ", ..." : "...");
                break;
            }
            if (text == 0) break;
            if (i > 0) line.Append(", ");
            AppendString(line, context, text, PathMax, MostText);
        }
        line.Append(']');
    }

    private static void AppendVectors(StringBuilder line, ISyscallContext context, ulong address, ulong count, long limit)
    {
        var shown = (int)Math.Min(count, MostElements);
        var vectors = new ulong[shown * 2];
        if (count > SyscallMarshaller.MaxVectors || !context.TryRead(address, MemoryMarshal.AsBytes(vectors.AsSpan())))
        {
            line.Append(Hex(address));
            return;
        }
        line.Append('[');
        for (var i = 0; i < shown; i++)
        {
            line.Append(i > 0 ? ", " : "").Append("{iov_base=");
            var length = (long)Math.Min(vectors[i * 2 + 1], long.MaxValue);
            if (limit < 0) line.Append(Hex(vectors[i * 2]));
            else AppendData(line, context, vectors[i * 2], Math.Min(length, limit));
            if (limit > 0 && limit != long.MaxValue) limit = Math.Max(0, limit - length);
            line.Append(", iov_len=").Append(length).Append('}');
        }
        if (count > MostElements) line.Append(", ...");
        line.Append(']');
    }

    private static void AppendMessage(StringBuilder line, ISyscallContext context, ulong address, long limit)
    {
        Span<byte> header = stackalloc byte[KernelStructSize.Msghdr];
        if (!context.TryRead(address, header))
        {
            line.Append(Hex(address));
            return;
        }
        var words = MemoryMarshal.Cast<byte, ulong>(header);
        line.Append("{msg_name=");
        if (words[0] == 0) line.Append("NULL");
        else if (limit < 0) line.Append(Hex(words[0]));
        else AppendMemory(line, context, MemoryFormat.SocketAddress, words[0], Math.Clamp((int)words[1], 0, KernelStructSize.SockaddrStorage));
        line.Append(", msg_namelen=").Append((int)words[1]).Append(", msg_iov=");
        AppendVectors(line, context, words[2], words[3], limit);
        line.Append(", msg_iovlen=").Append(words[3]).Append(", msg_controllen=").Append(words[5]).Append(", msg_flags=");
        AppendFlags(line, TraceNames.MessageFlags, (uint)words[6]);
        line.Append('}');
    }

    private static void AppendMessages(StringBuilder line, ISyscallContext context, ulong address, uint count, bool output, long? result)
    {
        if (output) count = (uint)Math.Clamp(result ?? -1, 0, count);
        line.Append('[');
        for (uint i = 0; i < count && i < MostElements; i++)
        {
            var header = address + i * KernelStructSize.Mmsghdr;
            uint length = 0;
            context.TryRead(header + KernelStructSize.Msghdr, MemoryMarshal.AsBytes(new Span<uint>(ref length)));
            line.Append(i > 0 ? ", " : "").Append("{msg_hdr=");
            AppendMessage(line, context, header, output ? length : long.MaxValue);
            line.Append(", msg_len=").Append(length).Append('}');
        }
        if (count > MostElements) line.Append(", ...");
        line.Append(']');
    }

    private static void AppendSocketAddress(StringBuilder line, ReadOnlySpan<byte> address)
    {
        if (address.Length < 2)
        {
            AppendEscaped(line, address, MostText);
            return;
        }
        var family = BinaryPrimitives.ReadUInt16LittleEndian(address);
        AppendName(line.Append("{sa_family="), TraceNames.SocketFamilies, family);
        switch (family)
        {
            case 1 when address.Length > 2:
                line.Append(", sun_path=");
                var path = address[2..];
                if (path[0] == 0)
                {
                    // An abstract name has no end but that of the address.
                    line.Append('@');
                    AppendEscaped(line, path[1..], 108);
                }
                else
                {
                    var end = path.IndexOf((byte)0);
                    AppendEscaped(line, end < 0 ? path : path[..end], 108);
                }
                break;
            case 2 when address.Length >= 8:
                line.Append(CultureInfo.InvariantCulture, $", sin_port=htons({BinaryPrimitives.ReadUInt16BigEndian(address[2..])}), sin_addr=inet_addr(\"{new IPAddress(address.Slice(4, 4))}\")");
                break;
            case 10 when address.Length >= 24:
                line.Append(CultureInfo.InvariantCulture, $", sin6_port=htons({BinaryPrimitives.ReadUInt16BigEndian(address[2..])}), sin6_addr=\"{new IPAddress(address.Slice(8, 16))}\"");
                break;
            case 16 when address.Length >= 12:
                line.Append(CultureInfo.InvariantCulture, $", nl_pid={BinaryPrimitives.ReadUInt32LittleEndian(address[4..])}, nl_groups={BinaryPrimitives.ReadUInt32LittleEndian(address[8..]):x8}");
                break;
            default:
                if (address.Length > 2) AppendEscaped(line.Append(", sa_data="), address[2..], MostText);
                break;
        }
        line.Append('}');
    }

    /// <summary>A string that ends with a zero byte.</summary>
    private static void AppendString(StringBuilder line, ISyscallContext context, ulong address, int limit, int shown)
    {
        var text = new byte[limit];
        var length = 0;
        while (length < limit)
        {
            var piece = Math.Min(limit - length, 4096 - (int)(address + (ulong)length & 4095));
            if (!context.TryRead(address + (ulong)length, text.AsSpan(length, piece)))
            {
                line.Append(Hex(address));
                return;
            }
            var end = text.AsSpan(length, piece).IndexOf((byte)0);
            length += end < 0 ? piece : end;
            if (end >= 0) break;
        }
        AppendEscaped(line, text.AsSpan(0, length), shown);
    }

    private static void AppendData(StringBuilder line, ISyscallContext context, ulong address, long length)
    {
        Span<byte> data = stackalloc byte[MostText + 1];
        data = data[..(int)Math.Clamp(length, 0, data.Length)];
        if (context.TryRead(address, data)) AppendEscaped(line, data, MostText);
        else line.Append(Hex(address));
    }

    private static void AppendEscaped(StringBuilder line, ReadOnlySpan<byte> data, int most)
    {
        line.Append('"');
        var shown = data[..Math.Min(data.Length, most)];
        for (var i = 0; i < shown.Length; i++)
        {
            var c = shown[i];
            switch (c)
            {
                case (byte)'"' or (byte)'\\': line.Append('\\').Append((char)c); break;
                case (byte)'\n': line.Append("\\n"); break;
                case (byte)'\r': line.Append("\\r"); break;
                case (byte)'\t': line.Append("\\t"); break;
                case (byte)'\v': line.Append("\\v"); break;
                case (byte)'\f': line.Append("\\f"); break;
                case >= 0x20 and < 0x7f: line.Append((char)c); break;
                default:
                    // As short as the next character allows: a digit after it would be taken as part of it.
                    var digit = i + 1 < shown.Length && shown[i + 1] is >= (byte)'0' and <= (byte)'9';
                    line.Append('\\').Append(Convert.ToString(c, 8).PadLeft(digit ? 3 : 1, '0'));
                    break;
            }
        }
        line.Append('"');
        if (data.Length > most) line.Append("...");
    }

    private static void AppendFlags(StringBuilder line, (ulong Value, string Name)[] names, ulong value, string none = "0")
    {
        if (value == 0)
        {
            line.Append(none);
            return;
        }
        var first = true;
        // Highest first: O_SYNC and O_TMPFILE contain the bit of another flag.
        var found = new List<string>();
        for (var i = names.Length - 1; i >= 0; i--)
        {
            var (bits, name) = names[i];
            if ((value & bits) != bits || bits == 0) continue;
            value &= ~bits;
            found.Add(name);
        }
        for (var i = found.Count - 1; i >= 0; i--)
        {
            line.Append(first ? "" : "|").Append(found[i]);
            first = false;
        }
        if (value != 0) line.Append(first ? "" : "|").Append(Hex(value));
    }

    private static void AppendName(StringBuilder line, (ulong Value, string Name)[] names, ulong value, bool decimalNumber = false) =>
        line.Append(TraceNames.Find(names, value) ?? (decimalNumber ? value.ToString(CultureInfo.InvariantCulture) : Hex(value)));

    private static void AppendSignal(StringBuilder line, ulong signal)
    {
        if (TraceNames.Find(TraceNames.Signals, signal) is { } name) line.Append(name);
        else if (signal is >= 32 and <= 64) line.Append(CultureInfo.InvariantCulture, $"SIGRT_{signal - 32}");
        else line.Append(signal);
    }

    private static void AppendSignalSet(StringBuilder line, ulong set)
    {
        // A set that is nearly full is shown by what is missing.
        var inverted = System.Numerics.BitOperations.PopCount(set) > 32;
        if (inverted) set = ~set;
        line.Append(inverted ? "~[" : "[");
        var first = true;
        for (var signal = 1; signal <= 64; signal++)
        {
            if ((set >> signal - 1 & 1) == 0) continue;
            if (!first) line.Append(' ');
            first = false;
            if (TraceNames.Find(TraceNames.Signals, (ulong)signal) is { } name) line.Append(name.AsSpan(3));
            else line.Append(CultureInfo.InvariantCulture, $"RT_{signal - 32}");
        }
        line.Append(']');
    }

    private static void AppendLimit(StringBuilder line, long limit)
    {
        if (limit == -1) line.Append("RLIM64_INFINITY");
        else line.Append((ulong)limit);
    }

    private static void AppendOctal(StringBuilder line, uint value) => line.Append('0').Append(value == 0 ? "" : Convert.ToString(value, 8));

    private static string Hex(ulong value) => value == 0 ? "0" : $"0x{value:x}";
}
