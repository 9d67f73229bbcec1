using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace Privy.Integration.Tests;

/// <summary>A reply of Redis in a form that can be compared and shown.</summary>
public sealed record Reply(char Kind, string? Text, IReadOnlyList<Reply>? Items)
{
    public bool IsError => Kind == '-';

    public long Number => long.Parse(Text!, CultureInfo.InvariantCulture);

    public override string ToString() => Items is null ? $"{Kind}{Text ?? "(nil)"}" : $"[{string.Join(", ", Items)}]";
}

/// <summary>A plain connection to Redis: writes commands, reads replies, nothing in between.</summary>
public sealed class RespClient : IDisposable
{
    private readonly TcpClient client;
    private readonly BufferedStream reader;
    private readonly MemoryStream pending = new();

    public RespClient(int port, int timeoutSeconds = 60)
    {
        client = new TcpClient();
        client.Connect("127.0.0.1", port);
        client.NoDelay = true;
        client.ReceiveTimeout = client.SendTimeout = timeoutSeconds * 1000;
        reader = new BufferedStream(client.GetStream(), 1 << 16);
    }

    /// <summary>Adds a command to what the next <see cref="Flush"/> sends.</summary>
    public void Queue(params string[] command)
    {
        Write($"*{command.Length}\r\n");
        foreach (var part in command)
        {
            var bytes = Encoding.UTF8.GetBytes(part);
            Write($"${bytes.Length}\r\n");
            pending.Write(bytes);
            Write("\r\n");
        }
    }

    /// <summary>Sends what is queued.</summary>
    public void Flush()
    {
        client.GetStream().Write(pending.GetBuffer(), 0, (int)pending.Length);
        pending.SetLength(0);
    }

    /// <summary>Sends one command and waits for its reply.</summary>
    public Reply Command(params string[] command)
    {
        Queue(command);
        Flush();
        return Read();
    }

    /// <summary>Sends one command whose reply must not be an error.</summary>
    public Reply Must(params string[] command)
    {
        var reply = Command(command);
        return reply.IsError ? throw new InvalidOperationException($"{string.Join(' ', command)}: {reply}") : reply;
    }

    /// <summary>Reads the next reply.</summary>
    public Reply Read()
    {
        var line = Line();
        switch (line[0])
        {
            case '$':
                var length = int.Parse(line.AsSpan(1), CultureInfo.InvariantCulture);
                if (length < 0)
                    return new Reply('$', null, null);
                var bytes = new byte[length + 2];
                reader.ReadExactly(bytes);
                return new Reply('$', Encoding.Latin1.GetString(bytes, 0, length), null);
            case '*':
                var count = int.Parse(line.AsSpan(1), CultureInfo.InvariantCulture);
                if (count < 0)
                    return new Reply('*', null, null);
                var items = new Reply[count];
                for (var i = 0; i < count; i++)
                    items[i] = Read();
                return new Reply('*', null, items);
            default:
                return new Reply(line[0], line[1..], null);
        }
    }

    public void Dispose()
    {
        reader.Dispose();
        client.Dispose();
        pending.Dispose();
    }

    private void Write(string text) => pending.Write(Encoding.ASCII.GetBytes(text));

    private string Line()
    {
        var line = new StringBuilder();
        for (int c; (c = reader.ReadByte()) != '\r';)
        {
            if (c < 0)
                throw new EndOfStreamException("Redis closed the connection.");
            line.Append((char)c);
        }
        reader.ReadByte();
        return line.ToString();
    }
}
