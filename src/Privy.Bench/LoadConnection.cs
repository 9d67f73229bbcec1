using System.Net;
using System.Net.Sockets;

namespace Privy.Bench;

/// <summary>A connection of the load generator: what is to be sent, and for each request on the way when it was due.</summary>
internal sealed class LoadConnection : IDisposable
{
    private const int MaxSendBuffer = 4 << 20;

    private readonly Socket _socket;
    private readonly byte[] _send;
    private readonly byte[] _receive = new byte[256 << 10];
    private readonly long[] _stamps;
    private readonly bool[] _isRead;
    private readonly int _maxRequest;
    private int _sendStart;
    private int _sendEnd;
    private int _oldest;

    public LoadConnection(LoadOptions options, int maxRequest)
    {
        _maxRequest = maxRequest;
        _stamps = new long[options.Outstanding];
        _isRead = new bool[options.Outstanding];
        _send = new byte[Math.Max(maxRequest, (int)Math.Min(MaxSendBuffer, (long)maxRequest * options.Outstanding))];
        // Touched now, so that page faults do not fall into the run.
        _receive.AsSpan().Fill(1);
        _send.AsSpan().Fill(1);
        _socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            _socket.NoDelay = true;
            _socket.Connect(IPAddress.Loopback, options.Port);
            _socket.Blocking = false;
        }
        catch
        {
            _socket.Dispose();
            throw;
        }
    }

    /// <summary>Finds the replies in what is received. A field: it is a mutable structure.</summary>
    public ReplyCounter Replies;

    public int Descriptor => (int)_socket.Handle;

    public int InFlight { get; private set; }

    public bool IsIdle => InFlight == 0;

    public bool HasUnsent => _sendStart < _sendEnd;

    /// <summary>Whether another request fits into the window and the buffer.</summary>
    public bool HasRoom
    {
        get
        {
            if (InFlight == _stamps.Length) return false;
            if (_send.Length - _sendEnd >= _maxRequest) return true;
            if (_sendStart == 0) return false;
            _send.AsSpan(_sendStart, _sendEnd - _sendStart).CopyTo(_send);
            _sendEnd -= _sendStart;
            _sendStart = 0;
            return _send.Length - _sendEnd >= _maxRequest;
        }
    }

    /// <summary>Room for one request; only valid after <see cref="HasRoom"/> said so.</summary>
    public Span<byte> Reserve() => _send.AsSpan(_sendEnd);

    /// <summary>Takes over the request that was written to <see cref="Reserve"/>.</summary>
    public void Add(int length, long stamp, bool isRead)
    {
        _sendEnd += length;
        var at = _oldest + InFlight;
        if (at >= _stamps.Length) at -= _stamps.Length;
        _stamps[at] = stamp;
        _isRead[at] = isRead;
        InFlight++;
    }

    /// <summary>The oldest request on the way, whose reply has come.</summary>
    public (long Stamp, bool IsRead) Take()
    {
        if (InFlight == 0) throw new InvalidDataException("The server sent more replies than it got requests.");
        var at = _oldest;
        _oldest = at + 1 == _stamps.Length ? 0 : at + 1;
        InFlight--;
        return (_stamps[at], _isRead[at]);
    }

    /// <summary>Sends what the socket takes.</summary>
    public void Flush()
    {
        while (_sendStart < _sendEnd)
        {
            var sent = _socket.Send(_send.AsSpan(_sendStart, _sendEnd - _sendStart), SocketFlags.None, out var error);
            if (error == SocketError.WouldBlock) return;
            if (error != SocketError.Success) throw new IOException("the server closed the connection (" + error + ")");
            _sendStart += sent;
        }

        _sendStart = _sendEnd = 0;
    }

    /// <summary>What has arrived; empty if nothing has.</summary>
    public ReadOnlySpan<byte> Receive()
    {
        var received = _socket.Receive(_receive, SocketFlags.None, out var error);
        if (error == SocketError.WouldBlock) return default;
        if (error != SocketError.Success || received == 0) throw new IOException("the server closed the connection");
        return _receive.AsSpan(0, received);
    }

    public void Dispose() => _socket.Dispose();
}
