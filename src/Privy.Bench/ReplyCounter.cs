using System.Text;

namespace Privy.Bench;

/// <summary>
/// Finds the ends of replies in a stream of the Redis protocol, version 2: simple strings, errors, integers and bulk strings
/// (what GET and SET answer). Keeps its place between calls, allocates nothing.
/// </summary>
internal struct ReplyCounter
{
    private enum State : byte
    {
        Type,
        Line,
        LineEnd,
        Length,
        LengthEnd,
        Body,
    }

    private State _state;
    private bool _isError;
    private bool _isNegative;
    private long _number;
    private byte[]? _errorText;
    private int _errorLength;

    /// <summary>How many of the replies so far were errors.</summary>
    public long Errors { get; private set; }

    /// <summary>The text of the first error.</summary>
    public readonly string? FirstError => _errorText is null ? null : Encoding.UTF8.GetString(_errorText, 0, _errorLength);

    /// <summary>Takes the next bytes and returns how many replies ended in them.</summary>
    public int Advance(ReadOnlySpan<byte> bytes)
    {
        var replies = 0;
        var i = 0;
        while (i < bytes.Length)
        {
            switch (_state)
            {
                case State.Type:
                    var type = bytes[i++];
                    _isError = false;
                    switch (type)
                    {
                        case (byte)'+' or (byte)':' or (byte)'_':
                            _state = State.Line;
                            break;
                        case (byte)'-':
                            _state = State.Line;
                            _isError = true;
                            Errors++;
                            break;
                        case (byte)'$':
                            _state = State.Length;
                            _isNegative = false;
                            _number = 0;
                            break;
                        default:
                            throw new InvalidDataException($"The server's answer is not in the Redis protocol (byte 0x{type:x2} where a reply begins).");
                    }

                    break;

                case State.Line:
                    var end = bytes[i..].IndexOf((byte)'\r');
                    var part = end < 0 ? bytes[i..] : bytes.Slice(i, end);
                    if (_isError && Errors == 1) KeepErrorText(part);
                    i += part.Length;
                    if (end < 0) break;
                    i++;
                    _state = State.LineEnd;
                    break;

                case State.LineEnd:
                    i++;
                    _state = State.Type;
                    replies++;
                    break;

                case State.Length:
                    var c = bytes[i++];
                    if (c == '\r') _state = State.LengthEnd;
                    else if (c == '-') _isNegative = true;
                    else _number = _number * 10 + (c - '0');
                    break;

                case State.LengthEnd:
                    i++;
                    if (_isNegative)
                    {
                        _state = State.Type;
                        replies++;
                    }
                    else
                    {
                        _number += 2;
                        _state = State.Body;
                    }

                    break;

                case State.Body:
                    var taken = (int)Math.Min(_number, bytes.Length - i);
                    i += taken;
                    _number -= taken;
                    if (_number > 0) break;
                    _state = State.Type;
                    replies++;
                    break;
            }
        }

        return replies;
    }

    private void KeepErrorText(ReadOnlySpan<byte> part)
    {
        _errorText ??= new byte[256];
        var length = Math.Min(part.Length, _errorText.Length - _errorLength);
        part[..length].CopyTo(_errorText.AsSpan(_errorLength));
        _errorLength += length;
    }
}
