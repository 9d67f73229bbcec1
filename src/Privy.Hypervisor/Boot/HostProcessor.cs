using Iced.Intel;
using Privy.Hypervisor.Host;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Boot;

/// <summary>What only an instruction tells about the host's processor.</summary>
internal static unsafe class HostProcessor
{
    /// <summary>XCR0: the vector state the host kernel has enabled (XGETBV, Intel SDM vol. 1, 13.3).</summary>
    internal static ulong Xcr0()
    {
        var asm = new Assembler(64);
        asm.xor(ecx, ecx);
        asm.xgetbv();
        asm.shl(rdx, 32);
        asm.or(rax, rdx);
        asm.ret();
        var page = HostMemory.Map(0, 4096, HostMemory.PROT_READ | HostMemory.PROT_WRITE | HostMemory.PROT_EXEC, HostMemory.MAP_PRIVATE | HostMemory.MAP_ANONYMOUS);
        if (page < 0)
            return 7; // x87, SSE, AVX: what every x86-64 kernel with XSAVE enables
        using var stream = new UnmanagedMemoryStream((byte*)page, 0, 4096, FileAccess.Write);
        asm.Assemble(new StreamCodeWriter(stream), (ulong)page);
        var value = ((delegate* unmanaged<ulong>)page)();
        _ = HostMemory.Unmap((ulong)page, 4096);
        return value;
    }
}
