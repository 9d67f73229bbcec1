using System.Runtime.InteropServices;

namespace Privy.Kvm;

/// <summary>A virtual machine: memory slots and vCPUs.</summary>
public sealed unsafe class VirtualMachine : IDisposable
{
    private readonly int _descriptor;
    private readonly int _runSize;

    internal VirtualMachine(int descriptor, int runSize)
    {
        _descriptor = descriptor;
        _runSize = runSize;
    }

    /// <summary>
    /// Places the pages that Intel processors without unrestricted guest mode need (KVM_SET_TSS_ADDR, KVM_SET_IDENTITY_MAP_ADDR).
    /// </summary>
    /// <param name="guestPhysical">Start of four unused guest-physical pages below 4 GB.</param>
    public void ReserveIntelPages(ulong guestPhysical)
    {
        // Other processors may not know the calls; there they are not needed, so their result does not matter.
        _ = NativeMethods.Ioctl(_descriptor, KvmIoctl.SetTssAddress, (nint)guestPhysical);
        var identity = guestPhysical + 0x3000;
        _ = NativeMethods.Ioctl(_descriptor, KvmIoctl.SetIdentityMapAddress, (nint)(&identity));
    }

    /// <summary>Creates a memory slot.</summary>
    /// <exception cref="KvmException">The kernel refused; errno and arguments are in the message.</exception>
    public void SetMemoryRegion(in MemoryRegion region)
    {
        var copy = region;
        if (NativeMethods.Ioctl(_descriptor, KvmIoctl.SetUserMemoryRegion, (nint)(&copy)) < 0)
            throw new KvmException($"KVM_SET_USER_MEMORY_REGION(slot {region.Slot}, guest 0x{region.GuestPhysical:x}, size 0x{region.Size:x}, host 0x{region.HostVirtual:x})", Marshal.GetLastPInvokeError());
    }

    /// <summary>Creates a vCPU. Ids cannot be used again.</summary>
    public VirtualCpu CreateVcpu(int id)
    {
        var errno = 0;
        var descriptor = OwnDescriptors.Make(() =>
        {
            var made = NativeMethods.Ioctl(_descriptor, KvmIoctl.CreateVcpu, id);
            errno = Marshal.GetLastPInvokeError();
            return made;
        });
        if (descriptor < 0)
            throw new KvmException($"KVM_CREATE_VCPU({id})", errno);
        return new VirtualCpu(id, descriptor, _runSize);
    }

    /// <inheritdoc/>
    public void Dispose() => OwnDescriptors.Close(_descriptor);
}
