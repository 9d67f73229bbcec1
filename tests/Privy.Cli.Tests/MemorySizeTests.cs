namespace Privy.Cli.Tests;

public class MemorySizeTests
{
    [Theory]
    [InlineData("1", 1L)]
    [InlineData("4096", 4096L)]
    [InlineData("512M", 512L << 20)]
    [InlineData("512m", 512L << 20)]
    [InlineData("8G", 8L << 30)]
    [InlineData("8GB", 8L << 30)]
    [InlineData("8GiB", 8L << 30)]
    [InlineData("64k", 64L << 10)]
    [InlineData("2T", 2L << 40)]
    [InlineData("100B", 100L)]
    public void Reads_sizes(string text, long bytes)
    {
        Assert.True(MemorySize.TryParse(text, out var parsed));
        Assert.Equal(bytes, parsed);
    }

    [Theory]
    [InlineData("")]
    [InlineData("G")]
    [InlineData("0")]
    [InlineData("0G")]
    [InlineData("-1G")]
    [InlineData("1.5G")]
    [InlineData("1X")]
    [InlineData("1GX")]
    [InlineData("1BB")]
    [InlineData("1 000")]
    [InlineData("9223372036854775808")]
    [InlineData("8388608T")]
    public void Refuses_what_is_not_a_size(string text) => Assert.False(MemorySize.TryParse(text, out _));

    [Fact]
    public void The_largest_size_fits() => Assert.True(MemorySize.TryParse("8388607T", out _));

    [Theory]
    [InlineData("1,4,8", new[] { 1L << 30, 4L << 30, 8L << 30 })]
    [InlineData("512M, 2G", new[] { 512L << 20, 2L << 30 })]
    public void Reads_lists_in_gigabytes(string text, long[] expected)
    {
        Assert.True(Commands.TryParseSizes(text, out var sizes));
        Assert.Equal(expected, sizes);
    }

    [Theory]
    [InlineData("1,,2")]
    [InlineData("")]
    [InlineData("1;2")]
    public void Refuses_broken_lists(string text) => Assert.False(Commands.TryParseSizes(text, out _));

    [Theory]
    [InlineData(1L << 30, "1 GB")]
    [InlineData(3L << 29, "1.5 GB")]
    [InlineData(512L << 20, "512 MB")]
    [InlineData(100L, "100 B")]
    public void Writes_sizes(long bytes, string text) => Assert.Equal(text, MemorySize.Format(bytes));
}
