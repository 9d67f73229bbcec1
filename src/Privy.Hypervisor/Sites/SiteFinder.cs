using System.Buffers.Binary;
using Iced.Intel;
using Privy.Kernel;

namespace Privy.Hypervisor.Sites;

/// <summary>
/// Looks at the code around a SYSCALL and tells whether the instruction before it can be replaced, one for one. Instructions have no marks where they begin: the function is decoded from its
/// start, which the unwinder's table tells.
/// </summary>
internal static class SiteFinder
{
    /// <summary>Length of JMP rel32.</summary>
    internal const int JumpLength = 5;

    private const int LongestFunction = 64 * 1024;
    private const ulong Alignment = 16;

    /// <summary>The site of a SYSCALL; null if it is none that can be rewritten.</summary>
    /// <param name="read">Reads the program's memory.</param>
    /// <param name="image">Where the ELF image begins that holds it.</param>
    /// <param name="syscall">The SYSCALL's address.</param>
    internal static SyscallSite? Find(CodeReader read, ulong image, ulong syscall)
    {
        if (!UnwindTable.TryFindFunction(read, image, syscall, out var function) || function.End - function.Start > LongestFunction)
            return null;
        // Behind a function there is padding as well, up to where the next one may begin.
        var end = Math.Min(function.Next, (function.End + Alignment - 1) & ~(Alignment - 1));
        var code = new byte[end - function.Start];
        return read(function.Start, code) ? Find(code, function.Start, syscall) : null;
    }

    /// <summary>As above, in a function whose code is at hand.</summary>
    /// <param name="code">The function from its first instruction on, and the padding behind it.</param>
    /// <param name="start">Its address.</param>
    /// <param name="syscall">The SYSCALL's address.</param>
    internal static SyscallSite? Find(byte[] code, ulong start, ulong syscall)
    {
        var instructions = new List<Instruction>();
        var targets = new HashSet<ulong>();
        var decoder = Decoder.Create(64, code, start);
        while (decoder.IP < start + (ulong)code.Length)
        {
            decoder.Decode(out var instruction);
            // Padding that goes on behind the end.
            if (decoder.LastError == DecoderError.NoMoreBytes)
                break;
            // Data among the code: nothing after it is certain, nor anything that might lead there.
            if (instruction.IsInvalid)
                return null;
            if (instruction.Op0Kind == OpKind.NearBranch64)
                _ = targets.Add(instruction.NearBranchTarget);
            instructions.Add(instruction);
        }

        var at = instructions.FindIndex(i => i.IP == syscall);
        if (at < 1 || instructions[at].Mnemonic != Mnemonic.Syscall)
            return null;
        var load = instructions[at - 1];
        var bytes = code.AsSpan((int)(load.IP - start), load.Length);
        if (!TryReadNumber(bytes, out var number) || !InOnePage(load.IP, syscall) || Between(targets, load.IP + 1, syscall))
            return null;
        if (load.Length >= JumpLength)
            return new SyscallSite(load.IP, load.Length, number, 0, 0) { Bytes = bytes.ToArray() };
        var (pad, length) = FindPad(instructions, targets, load.IP, syscall);
        return pad == 0 ? null : new SyscallSite(load.IP, load.Length, number, pad, length) { Bytes = bytes.ToArray() };
    }

    private static bool TryReadNumber(ReadOnlySpan<byte> load, out uint number)
    {
        const byte moveToEax = 0xB8, xor = 0x31, xorReversed = 0x33, eaxEax = 0xC0;
        number = 0;
        if (load.Length == SyscallSite.LongLoad && load[0] == moveToEax)
            number = BinaryPrimitives.ReadUInt32LittleEndian(load[1..]);
        else if (load.Length != SyscallSite.ShortLoad || load[0] is not (xor or xorReversed) || load[1] != eaxEax)
            return false;
        return number < Boot.SyscallRing.NumberCount;
    }

    /// <summary>
    /// Room for a jump that nothing runs through: padding between an instruction that never goes on with the next one and the next aligned address. In the load's page, so that no processor ever has
    /// the one changed and the other not.
    /// </summary>
    private static (ulong Address, int Length) FindPad(List<Instruction> instructions, HashSet<ulong> targets, ulong load, ulong syscall)
    {
        for (var i = 1; i < instructions.Count; i++)
        {
            var begin = instructions[i].IP;
            // At an aligned address something may begin, by whatever name it is called.
            if (begin % Alignment == 0 || !EndsFlow(instructions[i - 1]))
                continue;
            var end = begin;
            while (i < instructions.Count && IsPadding(instructions[i]) && (end == begin || end % Alignment != 0))
                end = instructions[i++].NextIP;
            var distance = (long)(begin - (load + SyscallSite.ShortLoad));
            if (end % Alignment == 0 && end - begin >= JumpLength && distance is >= sbyte.MinValue and <= sbyte.MaxValue && InOnePage(begin, end - 1) && InOnePage(begin, syscall)
                && !Between(targets, begin, end))
                return (begin, (int)(end - begin));
        }

        return default;
    }

    private static bool EndsFlow(in Instruction instruction) => instruction.FlowControl is FlowControl.Return or FlowControl.UnconditionalBranch or FlowControl.IndirectBranch;

    private static bool IsPadding(in Instruction instruction) => instruction.Mnemonic is Mnemonic.Nop or Mnemonic.Int3;

    private static bool InOnePage(ulong first, ulong last) => first / Layout.PageSize == last / Layout.PageSize;

    private static bool Between(HashSet<ulong> targets, ulong first, ulong end)
    {
        for (var address = first; address < end; address++)
        {
            if (targets.Contains(address))
                return true;
        }

        return false;
    }
}
