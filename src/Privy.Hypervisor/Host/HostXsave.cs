using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Host;

/// <summary>The extended state that frames of the host kernel contain, and so those of the program: XCR0 is the same in both.</summary>
public static unsafe class HostXsave
{
    // AMX tile data must be asked for per process (arch_prctl) and does not fit KVM's plain 4 KB image.
    private const ulong Amx = 3UL << 17;
    private const int LegacyAndHeader = 576;

    static HostXsave()
    {
        var c = new Assembler(64);
        Label entry = c.CreateLabel();
        c.Label(ref entry);
        c.xor(ecx, ecx);
        c.xgetbv();
        c.shl(rdx, 32);
        c.or(rax, rdx);
        c.ret();
        Features = ((delegate* unmanaged<ulong>)HostCode.Assemble(c).GetLabelRIP(entry))() & ~Amx;
        Length = LegacyAndHeader;
        for (int component = 2; component < 63; component++)
            if ((Features >> component & 1) != 0)
            {
                (int length, int offset, _, _) = X86Base.CpuId(0xd, component);
                Length = Math.Max(Length, offset + length);
            }
    }

    /// <summary>XCR0 without AMX.</summary>
    public static ulong Features { get; }

    /// <summary>Length of the standard format for <see cref="Features"/>.</summary>
    public static int Length { get; }
}
