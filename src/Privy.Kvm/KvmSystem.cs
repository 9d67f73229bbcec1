using System.Runtime.InteropServices;

namespace Privy.Kvm;

/// <summary>The open <c>/dev/kvm</c> device.</summary>
public sealed unsafe class KvmSystem : IDisposable
{
    /// <summary>The only API version there has been since Linux 2.6.22.</summary>
    public const int ApiVersion = 12;

    private readonly int _descriptor;

    private KvmSystem(int descriptor) => _descriptor = descriptor;

    /// <summary>Opens the device.</summary>
    /// <exception cref="KvmException">It is absent, may not be opened, or speaks another API version.</exception>
    public static KvmSystem Open(string path = "/dev/kvm")
    {
        var descriptor = NativeMethods.Open(path, NativeMethods.O_RDWR | NativeMethods.O_CLOEXEC);
        if (descriptor < 0)
            throw new KvmException($"open({path})", Marshal.GetLastPInvokeError());
        var system = new KvmSystem(OwnDescriptors.Adopt(descriptor));
        try
        {
            var version = system.Call(KvmIoctl.GetApiVersion, 0, "KVM_GET_API_VERSION");
            return version == ApiVersion ? system : throw new KvmException($"KVM_GET_API_VERSION = {version}, need {ApiVersion}", 0);
        }
        catch (KvmException)
        {
            system.Dispose();
            throw;
        }
    }

    /// <summary>Value of a capability; 0: absent.</summary>
    public int Check(KvmCapability capability) => Call(KvmIoctl.CheckExtension, (nint)capability, $"KVM_CHECK_EXTENSION({capability})");

    /// <summary>The CPUID leaves this KVM can show a guest.</summary>
    public CpuidEntry[] SupportedCpuid()
    {
        for (var capacity = 128; ; capacity *= 2)
        {
            var buffer = (uint*)NativeMemory.AllocZeroed((nuint)(8 + (capacity * sizeof(CpuidEntry))));
            try
            {
                buffer[0] = (uint)capacity;
                if (NativeMethods.Ioctl(_descriptor, KvmIoctl.GetSupportedCpuid, (nint)buffer) == 0)
                    return new ReadOnlySpan<CpuidEntry>(buffer + 2, (int)buffer[0]).ToArray();
                var errno = Marshal.GetLastPInvokeError();
                const int tooBig = 7; // E2BIG: more leaves than there is room for
                if (errno != tooBig || capacity > 4096)
                    throw new KvmException("KVM_GET_SUPPORTED_CPUID", errno);
            }
            finally
            {
                NativeMemory.Free(buffer);
            }
        }
    }

    /// <summary>Makes a virtual machine without devices or memory.</summary>
    public VirtualMachine CreateVirtualMachine()
    {
        // KVM_CREATE_VM is interruptible (EINTR) while the first VM of a host enables virtualisation.
        int descriptor;
        do
            descriptor = NativeMethods.Ioctl(_descriptor, KvmIoctl.CreateVm, 0);
        while (descriptor < 0 && Marshal.GetLastPInvokeError() == 4);
        if (descriptor < 0)
            throw new KvmException("KVM_CREATE_VM", Marshal.GetLastPInvokeError());
        var runSize = Call(KvmIoctl.GetVcpuMmapSize, 0, "KVM_GET_VCPU_MMAP_SIZE");
        return new VirtualMachine(OwnDescriptors.Adopt(descriptor), runSize);
    }

    /// <inheritdoc/>
    public void Dispose() => OwnDescriptors.Close(_descriptor);

    private int Call(ulong request, nint argument, string name)
    {
        var result = NativeMethods.Ioctl(_descriptor, request, argument);
        return result >= 0 ? result : throw new KvmException(name, Marshal.GetLastPInvokeError());
    }
}
