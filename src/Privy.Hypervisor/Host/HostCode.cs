using System.Runtime.InteropServices;
using Iced.Intel;

namespace Privy.Hypervisor.Host;

/// <summary>Machine code in the host process: what must run in a signal handler, between a check and a system call, or in a vfork child, where managed code cannot.</summary>
internal static unsafe class HostCode
{
    /// <summary>Assembles into fresh pages that are never writable and executable at once. They live as long as the process.</summary>
    internal static AssemblerResult Assemble(Assembler assembler)
    {
        const int Length = 4096;
        byte* page = HostLibc.AllocatePages(Length);
        using var stream = new UnmanagedMemoryStream(page, 0, Length, FileAccess.Write);
        AssemblerResult result = assembler.Assemble(new StreamCodeWriter(stream), (ulong)page, BlockEncoderOptions.ReturnNewInstructionOffsets);
        if (HostLibc.Mprotect(page, Length, HostLibc.ProtRead | HostLibc.ProtExec) != 0)
            throw new HostException("mprotect", Marshal.GetLastPInvokeError(), "read and execute; machine-code stubs of the hypervisor");
        return result;
    }
}
