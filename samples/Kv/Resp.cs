using System.Buffers.Text;
using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace Kv;

/// <summary>The client has sent something that is not the protocol; the connection ends.</summary>
internal sealed class ProtocolException(string message) : Exception(message);

/// <summary>Takes requests from a connection: arrays of strings, or lines of words as a person types them.</summary>
internal sealed class RequestReader(Socket socket)
{
    private const int MaxArguments = 1 << 20;
    private const int MaxLength = 512 << 20;

    private byte[] _buffer = new byte[16 << 10];
    private int _start;
    private int _end;

    /// <summary>The arguments of the latest request, as parts of the buffer.</summary>
    private readonly List<(int Start, int Length)> _arguments = [];

    internal int Count => _arguments.Count;

    internal ReadOnlySpan<byte> this[int index] => _buffer.AsSpan(_start + _arguments[index].Start, _arguments[index].Length);

    /// <summary>The arguments, to be kept.</summary>
    internal byte[][] Copy()
    {
        var copy = new byte[Count][];
        for (int i = 0; i < copy.Length; i++)
            copy[i] = this[i].ToArray();
        return copy;
    }

    /// <summary>Waits for more bytes.</summary>
    /// <returns>False at the end of the connection.</returns>
    internal bool Receive()
    {
        if (_start > 0)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            _end -= _start;
            _start = 0;
        }
        if (_end == _buffer.Length)
            Array.Resize(ref _buffer, _buffer.Length * 2);
        int received = socket.Receive(_buffer.AsSpan(_end));
        _end += received;
        return received > 0;
    }

    /// <summary>Parses the next request, if it is there as a whole.</summary>
    /// <param name="length">Bytes of the request, for <see cref="Consume"/>.</param>
    internal bool TryParse(out int length)
    {
        ReadOnlySpan<byte> bytes = _buffer.AsSpan(_start, _end - _start);
        _arguments.Clear();
        length = 0;
        if (!TryLine(bytes, ref length, out ReadOnlySpan<byte> line))
            return false;
        if (line.Length == 0 || line[0] != '*')
        {
            Words(line);
            return true;
        }
        int count = Number(line[1..], MaxArguments);
        for (int i = 0; i < count; i++)
        {
            if (!TryLine(bytes, ref length, out line))
                return false;
            if (line.Length == 0 || line[0] != '$')
                throw new ProtocolException("expected '$'");
            int size = Number(line[1..], MaxLength);
            if (bytes.Length - length < size + 2)
                return false;
            _arguments.Add((length, size));
            length += size + 2;
        }
        return true;
    }

    internal void Consume(int length) => _start += length;

    private static bool TryLine(ReadOnlySpan<byte> bytes, ref int at, out ReadOnlySpan<byte> line)
    {
        int end = bytes[at..].IndexOf((byte)'\n');
        line = end < 0 ? default : bytes.Slice(at, end).TrimEnd((byte)'\r');
        at += end + 1;
        if (end < 0 && bytes.Length - at > 64 << 10)
            throw new ProtocolException("too big a line");
        return end >= 0;
    }

    private void Words(ReadOnlySpan<byte> line)
    {
        for (int i = 0; i < line.Length;)
        {
            int length = line[i..].IndexOf((byte)' ');
            length = length < 0 ? line.Length - i : length;
            if (length > 0)
                _arguments.Add((i, length));
            i += length + 1;
        }
    }

    private static int Number(ReadOnlySpan<byte> text, int max) =>
        Utf8Parser.TryParse(text, out int value, out int used) && used == text.Length && value >= 0 && value <= max
            ? value
            : throw new ProtocolException("invalid length");
}

/// <summary>Collects replies and sends them.</summary>
internal sealed class ReplyWriter(Socket socket)
{
    private byte[] _buffer = new byte[16 << 10];
    private int _used;

    internal void Ok() => Raw("+OK\r\n"u8);

    internal void Simple(string text) => Raw(Encoding.UTF8.GetBytes($"+{text}\r\n"));

    internal void Error(string text) => Raw(Encoding.UTF8.GetBytes($"-{text}\r\n"));

    internal void SimpleOrError(string text, string? error) => Raw(Encoding.UTF8.GetBytes(error is null ? $"+{text}\r\n" : $"-{error}\r\n"));

    internal void Null() => Raw("$-1\r\n"u8);

    internal void Integer(long value) => Prefixed(':', value);

    internal void Array(int count) => Prefixed('*', count);

    internal void Bulk(string text) => Bulk(Encoding.UTF8.GetBytes(text));

    internal void Bulk(ReadOnlySpan<byte> bytes)
    {
        Prefixed('$', bytes.Length);
        Raw(bytes);
        Raw("\r\n"u8);
    }

    internal void Send()
    {
        for (int sent = 0; sent < _used;)
            sent += socket.Send(_buffer.AsSpan(sent, _used - sent));
        _used = 0;
    }

    private void Prefixed(char prefix, long value)
    {
        Reserve(24);
        _buffer[_used++] = (byte)prefix;
        _ = value.TryFormat(_buffer.AsSpan(_used), out int length, default, CultureInfo.InvariantCulture);
        _used += length;
        Raw("\r\n"u8);
    }

    private void Raw(ReadOnlySpan<byte> bytes)
    {
        Reserve(bytes.Length);
        bytes.CopyTo(_buffer.AsSpan(_used));
        _used += bytes.Length;
    }

    private void Reserve(int bytes)
    {
        if (_buffer.Length - _used < bytes)
            System.Array.Resize(ref _buffer, Math.Max(_buffer.Length * 2, _used + bytes));
    }
}
