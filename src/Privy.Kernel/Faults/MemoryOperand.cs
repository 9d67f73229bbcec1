namespace Privy.Kernel;

/// <summary>
/// The address that an instruction was about to access, from its bytes and the program's registers (AMD64 manual vol. 3, chapter 1; Intel SDM vol. 2A, chapter 2).
/// A guess: whoever uses it must do no harm where it is wrong (<see cref="FaultAddress"/>), so what is rare is left out: immediates behind an operand relative to rip,
/// gathers, and the second page of an operand that lies in two.
/// </summary>
internal static unsafe class MemoryOperand
{
    /// <summary>As many bytes as are looked at: the longest instruction has 15.</summary>
    internal const int CodeBytes = 16;

    /// <summary>More have no use. With so many, an opcode and the longest operand that it names still are within the bytes.</summary>
    internal const int MostPrefixes = 6;

    private const int Rsp = 4, Rbp = 5, Rsi = 6, Rdi = 7;
    private const int RexB = 1, RexX = 2, RexMask = 7;
    private const int SegmentNone = 0, SegmentFs = 1, SegmentGs = 2;

    /// <param name="code"><see cref="CodeBytes"/> bytes from the instruction on.</param>
    /// <param name="rip">Its address.</param>
    /// <param name="registers">The 16 general registers in the order of their numbers.</param>
    /// <param name="write">Whether it was writing when it faulted.</param>
    /// <param name="bases">Whether the bases of FS and GS can be read.</param>
    /// <param name="address">The address.</param>
    /// <returns>False for instructions it does not know.</returns>
    internal static bool Find(byte* code, ulong rip, ulong* registers, bool write, bool bases, out ulong address)
    {
        address = 0;
        int at = 0;
        int rex = 0;
        int segment = SegmentNone;
        bool shortAddress = false;
        for (; ; at++)
        {
            if (at == MostPrefixes)
                return false;
            int prefix = code[at];
            if ((prefix & 0xF0) == 0x40)
            {
                rex = prefix;
                continue;
            }
            if (prefix == 0x64)
                segment = SegmentFs;
            else if (prefix == 0x65)
                segment = SegmentGs;
            else if (prefix == 0x67)
                shortAddress = true;
            else if (!IsIgnored(prefix))
                break;
            // REX counts right before the opcode alone.
            rex = 0;
        }

        // The scale of an 8-bit displacement, which AVX-512 counts in operands (Intel SDM vol. 2A, 2.7.5).
        int shift = 0;
        int opcode = code[at++];
        if (opcode == 0x0F)
        {
            opcode = code[at++];
            if (opcode is 0x38 or 0x3A)
                at++;
        }
        else if (opcode == 0xC5)
        {
            // No bit for base or index.
            at += 2;
        }
        else if (opcode == 0xC4)
        {
            rex = (~code[at] >> 5) & RexMask;
            at += 3;
        }
        else if (opcode == 0x62)
        {
            rex = (~code[at] >> 5) & RexMask;
            bool wide = (code[at + 1] & 0x80) != 0;
            int length = (code[at + 2] >> 5) & 3;
            bool broadcast = (code[at + 2] & 0x10) != 0;
            shift = broadcast ? (wide ? 3 : 2) : 4 + length;
            at += 4;
        }
        else if (Implicit(opcode, code + at, registers, write, out address))
        {
            return Based(segment, bases, ref address);
        }
        else if (Fixed(opcode, code[at], registers, write, out address))
        {
            return true;
        }
        address = 0;
        if (at > CodeBytes - 1)
            return false;

        int modrm = code[at++];
        int mod = modrm >> 6;
        int rm = modrm & 7;
        if (mod == 3)
            return false;
        int displacementBytes = mod == 1 ? 1 : mod == 2 ? 4 : 0;
        if (rm == 4)
        {
            if (at > CodeBytes - 1)
                return false;
            int sib = code[at++];
            int index = ((sib >> 3) & 7) | ((rex & RexX) != 0 ? 8 : 0);
            if (index != Rsp)
                address = registers[index] << (sib >> 6);
            int register = sib & 7;
            if (register == Rbp && mod == 0)
                displacementBytes = 4;
            else
                address += registers[register | ((rex & RexB) != 0 ? 8 : 0)];
        }
        else if (rm == Rbp && mod == 0)
        {
            displacementBytes = 4;
            address = rip + (ulong)at + 4;
        }
        else
        {
            address = registers[rm | ((rex & RexB) != 0 ? 8 : 0)];
        }
        if (at + displacementBytes > CodeBytes)
            return false;
        if (displacementBytes == 1)
            address += (ulong)((long)(sbyte)code[at] << shift);
        else if (displacementBytes == 4)
            address += (ulong)(long)(code[at] | code[at + 1] << 8 | code[at + 2] << 16 | code[at + 3] << 24);
        if (shortAddress)
            address &= 0xFFFF_FFFF;
        return Based(segment, bases, ref address);
    }

    /// <summary>Operand size, repetition, LOCK, and the segments that have no base in 64-bit mode.</summary>
    private static bool IsIgnored(int prefix) => prefix is 0x66 or 0xF2 or 0xF3 or 0xF0 or 0x2E or 0x36 or 0x3E or 0x26;

    /// <summary>Operands that the opcode itself names, in a segment of choice: absolute addresses, and what string instructions read by RSI.</summary>
    private static bool Implicit(int opcode, byte* next, ulong* registers, bool write, out ulong address)
    {
        address = 0;
        if (opcode is >= 0xA0 and <= 0xA3)
        {
            for (int i = 7; i >= 0; i--)
                address = address << 8 | next[i];
            return true;
        }
        if (opcode is 0xAC or 0xAD or 0xA6 or 0xA7 || (opcode is 0xA4 or 0xA5 && !write))
        {
            address = registers[Rsi];
            return true;
        }
        return false;
    }

    /// <summary>Those whose segment is fixed: what string instructions do by RDI, and the stack.</summary>
    private static bool Fixed(int opcode, int modrm, ulong* registers, bool write, out ulong address)
    {
        const ulong slot = 8;
        address = registers[Rsp];
        // PUSH, CALL and PUSHF write below the stack pointer; POP, RET and POPF read at it.
        if ((opcode & 0xF8) == 0x50 || opcode is 0x68 or 0x6A or 0xE8 or 0x9C)
        {
            address -= slot;
            return true;
        }
        if ((opcode & 0xF8) == 0x58 || opcode is 0xC3 or 0xC2 or 0x9D)
            return true;
        // CALL and PUSH of a memory operand read that and write to the stack; POP of one the other way round.
        if (opcode == 0xFF && write && ((modrm >> 3) & 7) is (2 or 3 or 6))
        {
            address -= slot;
            return true;
        }
        if (opcode == 0x8F && !write)
            return true;
        address = registers[opcode == 0xC9 ? Rbp : Rdi];
        return opcode is 0xC9 or 0xA4 or 0xA5 or 0xAA or 0xAB or 0xAE or 0xAF;
    }

    private static bool Based(int segment, bool bases, ref ulong address)
    {
        if (segment == SegmentNone)
            return true;
        if (!bases)
            return false;
        address += segment == SegmentFs ? Intrinsics.FsBase() : Intrinsics.GsBase();
        return true;
    }
}
