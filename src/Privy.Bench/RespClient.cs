using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Privy.Bench;

/// <summary>A blocking client of the Redis protocol for control commands: one request, one reply.</summary>
public sealed class RespClient : IDisposable
{
    private readonly Socket _socket;
    private readonly byte[] _buffer = new byte[64 << 10];
    private int _start;
    private int _end;

    private RespClient(Socket socket) => _socket = socket;

    /// <summary>Connects to a server on the loopback address.</summary>
    public static RespClient Connect(int port, TimeSpan timeout)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)
        {
            NoDelay = true,
            ReceiveTimeout = (int)timeout.TotalMilliseconds,
            SendTimeout = (int)timeout.TotalMilliseconds,
        };
        try
        {
            socket.Connect(IPAddress.Loopback, port);
            return new RespClient(socket);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Sends a command and returns the reply's text (an array's elements one a line). An error reply becomes a <see cref="BenchException"/>.</summary>
    public string Command(params ReadOnlySpan<string> words)
    {
        var request = new StringBuilder().Append(CultureInfo.InvariantCulture, $"*{words.Length}\r\n");
        foreach (var word in words) request.Append(CultureInfo.InvariantCulture, $"${Encoding.UTF8.GetByteCount(word)}\r\n{word}\r\n");
        var bytes = Encoding.UTF8.GetBytes(request.ToString());
        try
        {
            for (var sent = 0; sent < bytes.Length;) sent += _socket.Send(bytes.AsSpan(sent));
            return ReadReply(words[0]);
        }
        catch (SocketException e)
        {
            throw new IOException(e.SocketErrorCode is SocketError.TimedOut or SocketError.WouldBlock
                ? $"no answer to {words[0]} in {_socket.ReceiveTimeout / 1000} s"
                : $"the connection broke during {words[0]}: {e.Message}", e);
        }
    }

    /// <summary>The fields of INFO.</summary>
    public Dictionary<string, string> Info(string section)
    {
        var fields = new Dictionary<string, string>();
        foreach (var line in Command("INFO", section).Split("\r\n"))
            if (line.IndexOf(':', StringComparison.Ordinal) is > 0 and var colon) fields[line[..colon]] = line[(colon + 1)..];
        return fields;
    }

    public void Dispose() => _socket.Dispose();

    private string ReadReply(string command)
    {
        var line = ReadLine();
        if (line.Length == 0) throw new InvalidDataException("The server's answer is not in the Redis protocol.");
        switch (line[0])
        {
            case '+' or ':':
                return line[1..];
            case '-':
                throw new BenchException($"{command}: {line[1..]}");
            case '$':
                var length = int.Parse(line.AsSpan(1), CultureInfo.InvariantCulture);
                return length < 0 ? "" : ReadBytes(length);
            case '*':
                var count = int.Parse(line.AsSpan(1), CultureInfo.InvariantCulture);
                var items = new string[Math.Max(count, 0)];
                for (var i = 0; i < items.Length; i++) items[i] = ReadReply(command);
                return string.Join('\n', items);
            default:
                throw new InvalidDataException("The server's answer is not in the Redis protocol.");
        }
    }

    private string ReadLine()
    {
        var line = new List<byte>();
        while (true)
        {
            if (_start == _end) Fill();
            var b = _buffer[_start++];
            if (b == '\n' && line is [.., (byte)'\r']) return Encoding.UTF8.GetString(line.ToArray(), 0, line.Count - 1);
            line.Add(b);
        }
    }

    private string ReadBytes(int length)
    {
        var bytes = new byte[length + 2];
        for (var read = 0; read < bytes.Length;)
        {
            if (_start == _end) Fill();
            var part = Math.Min(bytes.Length - read, _end - _start);
            _buffer.AsSpan(_start, part).CopyTo(bytes.AsSpan(read));
            _start += part;
            read += part;
        }

        return Encoding.UTF8.GetString(bytes, 0, length);
    }

    private void Fill()
    {
        _start = 0;
        _end = _socket.Receive(_buffer);
        if (_end == 0) throw new IOException("the server closed the connection");
    }
}
