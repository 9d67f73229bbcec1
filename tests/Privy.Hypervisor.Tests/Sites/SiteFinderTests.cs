using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Iced.Intel;
using Privy.Hypervisor.Sites;

namespace Privy.Hypervisor.Tests.Sites;

/// <summary>Which calls of a program can be rewritten.</summary>
public sealed class SiteFinderTests
{
    private const ulong Start = 0x7000_0000_0100;

    /// <summary>As glibc's getpid: B8 imm32, SYSCALL, RET.</summary>
    [Fact]
    public void A_long_load()
    {
        var site = Find("B827000000 0F05 C3 0F1F840000000000", 5);
        Assert.NotNull(site);
        Assert.Equal((Start, 5, 39u, 0ul), (site.Load, site.Length, site.Number, site.Pad));
        Assert.Equal(Start + 5, site.Syscall);
        Assert.Equal(Convert.FromHexString("B827000000"), site.Bytes);
    }

    /// <summary>As glibc's read: 31 C0, SYSCALL, and a NOP behind the RET up to the next aligned address.</summary>
    [Theory]
    [InlineData("31C0")]
    [InlineData("33C0")]
    public void A_short_load_with_padding_in_reach(string load)
    {
        var site = Find($"803D31330E0000 7417 {load} 0F05 483D00F0FFFF 775B C3 662E0F1F840000000000 4883EC28", 11);
        Assert.NotNull(site);
        Assert.Equal((Start + 9, 2, 0u, Start + 0x16, 10), (site.Load, site.Length, site.Number, site.Pad, site.PadLength));
    }

    [Theory]
    [InlineData("31C0 0F05 C3 909090", "padding of three bytes")]
    [InlineData("31C0 0F05 90 0F1F840000000000 C3", "the padding is run through")]
    [InlineData("31C0 0F05 EB01 C3 0F1F840000000000 0F1F00", "it does not end at an aligned address")]
    [InlineData("31C0 0F05 7402 C3 0F1F840000000000 909090", "a jump leads into it")]
    [InlineData("31C0 0F05 C3 0F1F840000000000 4883EC28", "there is code before the aligned address")]
    [InlineData("31C0 0F05 0F1F840000000000 0F1F00 C3 0F1F840000000000 0F1F840000000000", "what begins at an aligned address may be reached by its name")]
    public void A_short_load_without(string code, string why) => Assert.True(Find(code, 2) is null, why);

    /// <summary>As between functions that are aligned to more than 16 bytes.</summary>
    [Fact]
    public void Padding_that_goes_on_behind_the_end() => Assert.NotNull(Find("B827000000 0F05 C3 90909090 66662E0F", 5));

    [Theory]
    [InlineData("48C7C027000000 0F05 C3", 7, "another load")]
    [InlineData("B827000000 90 0F05 C3", 6, "an instruction between")]
    [InlineData("0F05 C3", 0, "no load in the function")]
    [InlineData("B8B8270000 00 0F05 C3", 6, "bytes in the middle of instructions")]
    [InlineData("48B8B82700000F050000 C3", 6, "no instruction at all")]
    [InlineData("B827000000 0F05 06 C3", 5, "bytes that are no code")]
    [InlineData("7401 B827000000 0F05 C3", 7, "a jump into the load")]
    [InlineData("B800020000 0F05 C3", 5, "a number that the stub does not know")]
    public void Others(string code, int syscall, string why) => Assert.True(Find(code, syscall) is null, why);

    [Fact]
    public void A_jump_to_the_syscall_itself_is_none_of_its_concern() => Assert.NotNull(Find("7405 B827000000 0F05 C3", 7));

    [Fact]
    public void Not_across_pages()
    {
        var code = Convert.FromHexString("B8270000000F05C3");
        Assert.NotNull(SiteFinder.Find(code, 0x1000, 0x1005));
        Assert.Null(SiteFinder.Find(code, 0x0FFD, 0x1002));
        // The padding of this one begins a page later.
        code = Convert.FromHexString("31C00F05909090909090909090909090C3909090909090909090909090909090");
        Assert.Null(SiteFinder.Find(code, 0x0FF0, 0x0FF2));
        Assert.NotNull(SiteFinder.Find(code, 0x0EF0, 0x0EF2));
    }

    [Fact]
    public void What_is_found_in_the_C_library_is_code_as_it_should_be()
    {
        var image = MappedImage.Library;
        var found = image.Syscalls().Select(s => SiteFinder.Find(image.Read, image.Base, s)).OfType<SyscallSite>().ToList();
        Assert.True(found.Count > 200, $"{found.Count} sites found");
        foreach (var site in found)
        {
            var bytes = new byte[site.Length + 2];
            Assert.True(image.Read(site.Load, bytes));
            Assert.Equal(site.Bytes, bytes[..site.Length]);
            Assert.Equal(0x050F, BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(site.Length)));
            Assert.Equal(site.Length == 5 ? BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(1)) : 0, site.Number);
            if (site.Length == 5)
                continue;
            Assert.InRange((long)site.Pad - (long)site.Syscall, sbyte.MinValue, sbyte.MaxValue);
            var pad = new byte[site.PadLength];
            Assert.True(image.Read(site.Pad, pad));
            var decoder = Decoder.Create(64, pad, site.Pad);
            while (decoder.IP < site.Pad + (ulong)pad.Length)
                Assert.Contains(decoder.Decode().Mnemonic, new[] { Mnemonic.Nop, Mnemonic.Int3 });
        }
    }

    [Theory]
    [InlineData("getpid", 39)]
    [InlineData("read", 0)]
    [InlineData("write", 1)]
    [InlineData("epoll_wait", 232)]
    [InlineData("lseek", 8)]
    public void Well_known_functions_of_the_C_library(string name, uint number)
    {
        var image = MappedImage.Library;
        var function = (ulong)NativeLibrary.GetExport(NativeLibrary.Load("libc.so.6"), name);
        Assert.True(UnwindTable.TryFindFunction(image.Read, image.Base, function, out var range));
        Assert.Equal(function, range.Start);
        Assert.True(range.Next >= range.End);
        var syscalls = image.Syscalls().Where(s => s >= range.Start && s < range.End).ToList();
        Assert.NotEmpty(syscalls);
        Assert.All(syscalls, syscall => Assert.Equal(number, SiteFinder.Find(image.Read, image.Base, syscall)?.Number));
    }

    [Fact]
    public void Nothing_without_a_table()
    {
        var image = MappedImage.Library;
        var outside = image.Code.Start;
        while (UnwindTable.TryFindFunction(image.Read, image.Base, outside, out _) && outside < image.Code.End)
            outside++;
        Assert.False(UnwindTable.TryFindFunction(image.Read, image.Base, image.Code.End, out _));
        Assert.False(UnwindTable.TryFindFunction(image.Read, image.Base + 4096, image.Code.Start + 4096, out _));
        Assert.False(UnwindTable.TryFindFunction((_, _) => false, image.Base, image.Code.Start + 4096, out _));
    }

    private static SyscallSite? Find(string code, int syscall)
    {
        var bytes = Convert.FromHexString(code.Replace(" ", "", StringComparison.Ordinal));
        return SiteFinder.Find(bytes, Start, Start + (ulong)syscall);
    }
}
