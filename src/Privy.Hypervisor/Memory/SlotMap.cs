using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Memory slots, made a gigabyte at a time when the kernel first needs one: under shadow paging a slot costs 8 bytes or
/// more of kernel memory a page, touched or not.
/// </summary>
internal sealed unsafe class SlotMap
{
    private readonly VirtualMachine _vm;
    private readonly KernelState* _state;
    private readonly GuestPhysicalMap _map;
    private readonly ulong _poolVirtual;
    private readonly Lock _lock = new();
    private uint _next;

    internal SlotMap(VirtualMachine vm, KernelState* state, GuestPhysicalMap map, ulong poolVirtual)
    {
        _vm = vm;
        _state = state;
        _map = map;
        _poolVirtual = poolVirtual;
    }

    /// <summary>Slots made so far.</summary>
    internal uint Count => _next;

    /// <summary>Adds a slot of any size (the kernel region, the vDSO).</summary>
    internal void Add(ulong physical, ulong hostVirtual, ulong size)
    {
        lock (_lock)
        {
            _vm.SetMemoryRegion(new MemoryRegion { Slot = _next, GuestPhysical = physical, HostVirtual = hostVirtual, Size = size });
            _next++;
        }
    }

    /// <summary>Makes the slot of the gigabyte that holds a guest-physical address.</summary>
    /// <returns>0, or a negative errno: no slot may be there, or KVM refused.</returns>
    internal long Ensure(ulong physical)
    {
        var gigabyte = physical / Layout.Gigabyte;
        var start = gigabyte * Layout.Gigabyte;
        ulong host;
        if (start == 0 && _state->LowEnd != 0)
            host = Layout.LargePageSize; // the first 2 MB stay out: page 0, and addresses the host may not map
        else if (start >= Layout.PoolPhysical && start < _map.PoolEnd)
            host = start - Layout.PoolPhysical + _poolVirtual;
        else if (start >= _map.WindowPhysical && start < _map.PhysicalEnd)
            host = start - _map.WindowPhysical + Layout.WindowBase;
        else
            return -Errno.EFAULT;

        lock (_lock)
        {
            var word = _state->SlotBitmap + (gigabyte / 64);
            var bit = 1UL << (int)(gigabyte % 64);
            if ((Volatile.Read(ref *word) & bit) != 0)
                return 0;
            if (FaultInjection.Fails(FaultPoint.Slot))
                return -Errno.ENOMEM;
            try
            {
                if (start == 0)
                    Add(host, host, Layout.Gigabyte - host);
                else
                    Add(start, host, Layout.Gigabyte);
            }
            catch (KvmException e)
            {
                return -e.Errno;
            }

            Interlocked.Or(ref *word, bit);
            return 0;
        }
    }
}
