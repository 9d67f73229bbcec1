using System.Text;
using CsCheck;
using Privy.Bench;

namespace Privy.Cli.Tests;

public class ReplyCounterTests
{
    private static readonly string[] Replies = ["+OK\r\n", ":42\r\n", "$-1\r\n", "$0\r\n\r\n", "$5\r\na\r\nb!\r\n", "-ERR no\r\n", "$12\r\n+OK\r\n$3\r\nab\r\r\n"];

    [Fact]
    public void Counts_replies_however_the_stream_is_cut() =>
        Gen.Select(Gen.Int[0, 6].Select(i => Replies[i]).Array[0, 30], Gen.Int[1, 9].Array[1, 40]).Sample((replies, cuts) =>
        {
            var bytes = Encoding.ASCII.GetBytes(string.Concat(replies));
            var counter = new ReplyCounter();
            var count = 0;
            for (int at = 0, i = 0; at < bytes.Length; i++)
            {
                var length = Math.Min(cuts[i % cuts.Length], bytes.Length - at);
                count += counter.Advance(bytes.AsSpan(at, length));
                at += length;
            }

            Assert.Equal(replies.Length, count);
            Assert.Equal(replies.Count(r => r[0] == '-'), counter.Errors);
            Assert.Equal(replies.Any(r => r[0] == '-') ? "ERR no" : null, counter.FirstError);
        });

    [Fact]
    public void Refuses_another_protocol() => Assert.Throws<InvalidDataException>(() => new ReplyCounter().Advance("HTTP/1.1 400"u8));
}
