using Iced.Intel;
using Xunit;
using Xunit.Abstractions;

namespace Privy.Kernel.Tests;

/// <summary>The guess of a fault's address, against Iced's decoder.</summary>
public sealed unsafe class MemoryOperandTests(ITestOutputHelper output)
{
    private const ulong Rip = 0x1000_0040_0123;

    // An operand relative to rip is off by the immediate behind it.
    private const ulong LongestImmediate = 4;

    private static readonly Register[] Numbered =
    [
        Register.RAX, Register.RCX, Register.RDX, Register.RBX, Register.RSP, Register.RBP, Register.RSI, Register.RDI,
        Register.R8, Register.R9, Register.R10, Register.R11, Register.R12, Register.R13, Register.R14, Register.R15,
    ];

    [Fact]
    public void Random_instructions()
    {
        var seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        var random = new Random(seed);
        var factory = new InstructionInfoFactory();
        var registers = stackalloc ulong[16];
        var seen = new Dictionary<EncodingKind, (int All, int Right)>();
        var bytes = new byte[MemoryOperand.CodeBytes];
        Intrinsics.SegmentBases = (0x7000_1234_0000, 0x7100_4321_0000);
        for (var round = 0; round < 400_000; round++)
        {
            random.NextBytes(bytes);
            Steer(random, bytes);
            for (var i = 0; i < 16; i++)
                registers[i] = (ulong)random.NextInt64(1L << 46);
            var decoder = Decoder.Create(64, bytes);
            decoder.IP = Rip;
            var instruction = decoder.Decode();
            if (instruction.IsInvalid || bytes.TakeWhile(IsPrefix).Count() >= MemoryOperand.MostPrefixes)
                continue;
            foreach (var access in (ReadOnlySpan<bool>)[false, true])
            {
                if (!Expect(factory, instruction, access, registers, out var wanted))
                    continue;
                bool found;
                ulong address;
                fixed (byte* code = bytes)
                    found = MemoryOperand.Find(code, Rip, registers, access, bases: true, out address);
                var right = found && address - wanted + LongestImmediate <= 2 * LongestImmediate;
                var (all, rights) = seen.GetValueOrDefault(instruction.Encoding);
                seen[instruction.Encoding] = (all + 1, rights + (right ? 1 : 0));
                // What these encodings leave open is the scale of a displacement, and rare implicit operands.
                if (instruction.Encoding is EncodingKind.Legacy or EncodingKind.VEX)
                    Assert.True(right, $"{instruction} (write: {access}): {(found ? $"{address:x}" : "none")}, not {wanted:x}; seed {seed}, bytes {Convert.ToHexString(bytes)}");
            }
        }

        foreach (var kind in (ReadOnlySpan<EncodingKind>)[EncodingKind.Legacy, EncodingKind.VEX, EncodingKind.EVEX])
        {
            var (all, right) = seen.GetValueOrDefault(kind);
            output.WriteLine($"{kind}: {right} of {all}");
            Assert.True(all > 500 && right * 10 > all * 6, $"{kind}: {right} of {all} operands, seed {seed}");
        }
    }

    [Theory]
    [InlineData("vmovdqu64 [rdi+40h],zmm16", new byte[] { 0x62, 0xE1, 0xFE, 0x48, 0x7F, 0x47, 0x01 }, true, 0x5000 + 0x40)]
    [InlineData("vmovdqu64 ymm17,[rsi-20h]", new byte[] { 0x62, 0xE1, 0xFE, 0x28, 0x6F, 0x4E, 0xFF }, false, 0x4000 - 0x20)]
    [InlineData("rep movsb, reading", new byte[] { 0xF3, 0xA4 }, false, 0x4000)]
    [InlineData("rep movsb, writing", new byte[] { 0xF3, 0xA4 }, true, 0x5000)]
    [InlineData("rep stosq", new byte[] { 0xF3, 0x48, 0xAB }, true, 0x5000)]
    [InlineData("call [rax], pushing", new byte[] { 0xFF, 0x10 }, true, 0x2000 - 8)]
    [InlineData("call [rax], reading", new byte[] { 0xFF, 0x10 }, false, 0x1000)]
    [InlineData("push rbx", new byte[] { 0x53 }, true, 0x2000 - 8)]
    [InlineData("ret", new byte[] { 0xC3 }, false, 0x2000)]
    [InlineData("mov rax,fs:[28h]", new byte[] { 0x64, 0x48, 0x8B, 0x04, 0x25, 0x28, 0, 0, 0 }, false, 0x9000 + 0x28)]
    [InlineData("lock cmpxchg [rsi],ecx", new byte[] { 0xF0, 0x0F, 0xB1, 0x0E }, true, 0x4000)]
    public void Instructions_that_matter(string what, byte[] code, bool write, long wanted)
    {
        var registers = stackalloc ulong[16];
        registers[0] = 0x1000;
        registers[4] = 0x2000;
        registers[6] = 0x4000;
        registers[7] = 0x5000;
        Intrinsics.SegmentBases = (0x9000, 0xA000);
        var bytes = new byte[MemoryOperand.CodeBytes];
        code.CopyTo(bytes, 0);
        fixed (byte* first = bytes)
        {
            Assert.True(MemoryOperand.Find(first, Rip, registers, write, bases: true, out var address), what);
            Assert.Equal((ulong)wanted, address);
        }
    }

    [Fact]
    public void What_lies_behind_the_bytes_does_not_matter()
    {
        var registers = stackalloc ulong[16];
        var random = new Random(7);
        var bytes = stackalloc byte[2 * MemoryOperand.CodeBytes];
        var all = new Span<byte>(bytes, 2 * MemoryOperand.CodeBytes);
        for (var round = 0; round < 200_000; round++)
        {
            random.NextBytes(all);
            if (round % 2 == 0)
                all[..random.Next(MemoryOperand.CodeBytes)].Fill(0x66);
            var found = MemoryOperand.Find(bytes, Rip, registers, write: true, bases: false, out var address);
            random.NextBytes(all[MemoryOperand.CodeBytes..]);
            Assert.Equal(found, MemoryOperand.Find(bytes, Rip, registers, write: true, bases: false, out var again));
            Assert.True(!found || again == address, Convert.ToHexString(all));
        }
    }

    /// <summary>Makes the interesting encodings as frequent as the others.</summary>
    private static void Steer(Random random, byte[] bytes)
    {
        switch (random.Next(6))
        {
            case 0:
                bytes[0] = 0xC5;
                bytes[1] = (byte)(bytes[1] & 0x87 | 0x78 & bytes[1]);
                break;
            case 1:
                bytes[0] = 0xC4;
                bytes[1] = (byte)(bytes[1] & 0xE0 | random.Next(1, 4));
                break;
            case 2:
                bytes[0] = 0x62;
                bytes[1] = (byte)(bytes[1] & 0xF0 | random.Next(1, 4));
                bytes[2] |= 4;
                bytes[3] = (byte)(bytes[3] & 0x68 | 8);
                break;
            case 3:
                bytes[0] = (byte)(0x48 | bytes[0] & 7);
                break;
            case 4:
                bytes[0] = random.Next(2) == 0 ? (byte)0x64 : (byte)0x66;
                break;
        }
    }

    private static bool IsPrefix(byte value) => value is 0x66 or 0x67 or 0xF2 or 0xF3 or 0xF0 or 0x2E or 0x36 or 0x3E or 0x26 or 0x64 or 0x65 or (>= 0x40 and < 0x50);

    /// <summary>The one address that the instruction reads, or writes; false if it has none, several, or one that is left out.</summary>
    private static bool Expect(InstructionInfoFactory factory, in Instruction instruction, bool write, ulong* registers, out ulong address)
    {
        address = 0;
        var count = 0;
        foreach (var used in factory.GetInfo(instruction).GetUsedMemory())
        {
            var matches = used.Access is OpAccess.ReadWrite or OpAccess.ReadCondWrite || (write ? used.Access is OpAccess.Write or OpAccess.CondWrite : used.Access is OpAccess.Read or OpAccess.CondRead);
            if (!matches)
                continue;
            if (used.Index.IsVectorRegister() || used.AddressSize is not CodeSize.Code64)
                return false;
            var from = registers;
            if (!used.TryGetVirtualAddress(0, out var value, (Register register, int _, int _, out ulong content) => Value(register, (nint)from, out content)))
                return false;
            address = value;
            count++;
        }

        // Tiles are rows, a register apart; PadLock is no processor's of today. XLAT, ENTER, far transfers, descriptor tables and shadow stacks are left out; XSAVE and its kin have many operands of one place.
        return count == 1 && !instruction.Op0Register.IsTMM() && !instruction.Op1Register.IsTMM()
            && !instruction.CpuidFeatures.Any(f => f.ToString().StartsWith("PADLOCK", StringComparison.Ordinal))
            && instruction.Mnemonic is not (Mnemonic.Xlatb or Mnemonic.Enter or Mnemonic.Maskmovdqu or Mnemonic.Maskmovq or Mnemonic.Vmaskmovdqu or Mnemonic.Iret or Mnemonic.Iretd or Mnemonic.Iretq
                or Mnemonic.Retf or Mnemonic.Call or Mnemonic.Jmp or Mnemonic.Clzero or Mnemonic.Monitor or Mnemonic.Monitorx or Mnemonic.Vmload or Mnemonic.Vmsave or Mnemonic.Movdir64b or Mnemonic.Enqcmd
                or Mnemonic.Enqcmds or Mnemonic.Push or Mnemonic.Pop or Mnemonic.Pushf or Mnemonic.Pushfq or Mnemonic.Popf or Mnemonic.Popfq or Mnemonic.Insb or Mnemonic.Insd or Mnemonic.Insw
                or Mnemonic.Outsb or Mnemonic.Outsd or Mnemonic.Outsw);
    }

    private static bool Value(Register register, nint registers, out ulong value)
    {
        var number = Array.IndexOf(Numbered, register);
        value = register switch
        {
            Register.FS => Intrinsics.SegmentBases.Fs,
            Register.GS => Intrinsics.SegmentBases.Gs,
            _ when number >= 0 => ((ulong*)registers)[number],
            _ => 0,
        };
        return number >= 0 || register.IsSegmentRegister();
    }
}
