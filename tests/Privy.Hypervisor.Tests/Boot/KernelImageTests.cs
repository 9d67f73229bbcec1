using Iced.Intel;
using Privy.Hypervisor.Boot;

namespace Privy.Hypervisor.Tests.Boot;

public sealed class KernelImageTests
{
    private const ulong Address = 0x0800_0010_0000;

    private static readonly Dictionary<string, ulong> Imports = new()
    {
        ["privy_doorbell_host"] = 0x0800_0000_1000,
        ["privy_copy_page"] = 0x0800_0000_1040,
        ["privy_zero_page"] = 0x0800_0000_1080,
        ["privy_pause"] = 0x0800_0000_10c0,
        ["privy_timestamp"] = 0x0800_0000_10e0,
        ["privy_try_copy"] = 0x0800_0000_1100,
        ["privy_fs_base"] = 0x0800_0000_1140,
        ["privy_gs_base"] = 0x0800_0000_1160,
    };

    [Theory]
    [InlineData("privy_page_fault")]
    [InlineData("privy_create_snapshot")]
    [InlineData("privy_release")]
    [InlineData("privy_unmap")]
    [InlineData("privy_protect")]
    [InlineData("privy_prepare_write")]
    [InlineData("privy_detach")]
    [InlineData("privy_clear_accessed")]
    [InlineData("privy_forget_linear")]
    public void Exports_resolve_into_the_code(string name)
    {
        KernelImage image = KernelImage.Load(Address, Imports);
        Assert.InRange(image.Symbol(name), Address, Address + (ulong)image.CodeSize - 1);
    }

    [Fact]
    public void Code_is_whole_and_free_of_vector_registers()
    {
        KernelImage image = KernelImage.Load(Address, Imports);
        var factory = new InstructionInfoFactory();
        int calls = 0;
        var importsSeen = new HashSet<ulong>();
        foreach ((string name, ulong start) in image.Symbols)
        {
            // Each function from its symbol to its last instruction before the next symbol.
            ulong end = image.Symbols.Values.Where(a => a > start).DefaultIfEmpty(start).Min();
            var decoder = Decoder.Create(64, new ByteArrayCodeReader(image.Bytes, (int)(start - Address), (int)(end - start)), start);
            while (decoder.IP < end)
            {
                Instruction instruction = decoder.Decode();
                Assert.False(instruction.IsInvalid, $"{name} at {decoder.IP:x}");
                foreach (UsedRegister used in factory.GetInfo(instruction).GetUsedRegisters())
                    Assert.False(used.Register.IsVectorRegister(), $"{name}: {instruction}");
                if (!instruction.IsCallNear)
                    continue;
                calls++;
                ulong target = instruction.NearBranchTarget;
                if (Imports.ContainsValue(target))
                    importsSeen.Add(target);
                else
                    Assert.Contains(target, image.Symbols.Values);
            }
        }
        Assert.True(calls > 20);
        Assert.Equal(Imports.Count, importsSeen.Count);
    }

    [Fact]
    public void Another_address_moves_every_symbol()
    {
        KernelImage one = KernelImage.Load(Address, Imports);
        KernelImage two = KernelImage.Load(Address + 0x10000, Imports);
        Assert.All(one.Symbols, s => Assert.Equal(s.Value + 0x10000, two.Symbol(s.Key)));
        Assert.Equal(one.Bytes.Length, two.Bytes.Length);
        Assert.False(one.Bytes.AsSpan().SequenceEqual(two.Bytes));
    }

    [Fact]
    public void Missing_import_is_named()
    {
        var imports = new Dictionary<string, ulong>(Imports);
        imports.Remove("privy_pause");
        var error = Assert.Throws<InvalidDataException>(() => KernelImage.Load(Address, imports));
        Assert.Contains("privy_pause", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Import_beyond_reach_is_refused()
    {
        var imports = new Dictionary<string, ulong>(Imports) { ["privy_pause"] = 0x0900_0000_0000 };
        var error = Assert.Throws<InvalidDataException>(() => KernelImage.Load(Address, imports));
        Assert.Contains("too far", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Unknown_symbol_is_named()
    {
        KernelImage image = KernelImage.Load(Address, Imports);
        var error = Assert.Throws<InvalidDataException>(() => image.Symbol("privy_nonsense"));
        Assert.Contains("privy_nonsense", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Garbage_is_not_an_object()
    {
        Assert.Throws<InvalidDataException>(() => KernelImage.Link(new byte[128], Address, Imports));
    }
}
