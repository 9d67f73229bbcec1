namespace Privy.Kernel;

/// <summary>Entry of page faults, and of the host's requests to act as if there had been one.</summary>
internal static unsafe class PageFaultHandler
{
    // Bits of the error code (Intel SDM vol. 3, 4.7).
    private const ulong ErrorWrite = 2;
    private const ulong ErrorReserved = 8;
    private const ulong ErrorFetch = 16;

    // A range is prepared in pieces, between which others get the lock.
    private const int PagesPerLock = 32;

    internal static long Handle(VcpuArea* v)
    {
        KernelState* k = v->Kernel;
        TrapFrame* trap = v->Trap;
        ulong address = trap->Cr2;
        bool guess = address == TrapFrame.Unknown;
        v->Faults++;
        v->NoReadyFrames = 0;
        if (!guess)
            FaultAddress.Told(v);
        // A program that has jumped to where nothing can be executed is not the kernel.
        bool strayed = (trap->Error & ErrorFetch) != 0 && (guess || trap->Rip == address);
        if (trap->Rip >= k->KernelBase && trap->Rip < k->TableEnd && trap->Rip != v->CopyRip && !strayed)
            HostCall.Panic(v, PanicCode.KernelFault, address);
        // In the upper half there are no tables of ours: paravirtual KVM reports what it has there.
        if ((trap->Error & ErrorReserved) != 0 && !guess && address >> 47 == 0)
            HostCall.Panic(v, PanicCode.ReservedBit, address);

        bool write = (trap->Error & ErrorWrite) != 0;
        bool fetch = (trap->Error & ErrorFetch) != 0;
        Outcome outcome;
        for (; ; )
        {
            KernelLock.Enter(k, v);
            Tables.FreeRetired(k, v);
            if (address == TrapFrame.Unknown && !FaultAddress.Guess(k, v, write, fetch, out address))
            {
                KernelLock.Exit(k);
                FaultAddress.Ask(v);
                return 0;
            }
            outcome = Resolve(k, v, v->Space, address, write, fetch, self: false, around: CopyAround.Adaptive);
            KernelLock.Exit(k);
            if (outcome == Outcome.Done)
            {
                ReaderCopies.Continue(k, v);
                ViewBlocks.Continue(k, v);
                RegionWrites.Finish(k, v);
                return 0;
            }
            outcome = Retry.Help(v, outcome);
            if (outcome != Outcome.Done)
                break;
        }
        if (guess)
        {
            // The program is told the address, and only of a fault that there was.
            FaultAddress.Ask(v);
            return 0;
        }
        v->FaultCode = outcome switch
        {
            Outcome.NotMapped => FaultCode.NotMapped,
            Outcome.Denied => FaultCode.Denied,
            _ => FaultCode.NoMemory,
        };
        v->FaultAddress = address;
        v->FaultError = trap->Error;
        int old;
        do
            old = System.Threading.Volatile.Read(ref v->ExitRequest);
        while (System.Threading.Interlocked.CompareExchange(ref v->ExitRequest, old | ExitReason.Fault, old) != old);
        return -Errno.Fault;
    }

    /// <summary>As if each page of the range had been written.</summary>
    internal static long PrepareWrite(VcpuArea* v, int spaceIndex, ulong start, ulong end)
    {
        KernelState* k = v->Kernel;
        ulong address = start & ~(Layout.PageSize - 1);
        while (address < end)
        {
            Outcome outcome = Outcome.Done;
            KernelLock.Enter(k, v);
            Tables.FreeRetired(k, v);
            for (int n = 0; n < PagesPerLock && address < end; n++)
            {
                outcome = Resolve(k, v, spaceIndex, address, write: true, fetch: false, self: true, around: address + Layout.PageSize >= end ? CopyAround.Adaptive : 0);
                if (outcome != Outcome.Done)
                    break;
                address += Layout.PageSize;
            }
            KernelLock.Exit(k);
            if (outcome == Outcome.Done)
                continue;
            outcome = Retry.Help(v, outcome);
            if (outcome == Outcome.Done)
                continue;
            v->FaultAddress = address < start ? start : address;
            return outcome == Outcome.NoMemory ? -Errno.NoMemory : -Errno.Fault;
        }
        return 0;
    }

    private static Outcome Resolve(
        KernelState* k, VcpuArea* v, int spaceIndex, ulong address, bool write, bool fetch, bool self, int around)
    {
        if (spaceIndex == 0 && !self && View.Contains(address))
            return View.Resolve(k, v, address, write, fetch);
        if (!LinearMap.Contains(k, address))
            return Outcome.NotMapped;
        address &= ~(Layout.PageSize - 1);
        if (spaceIndex != 0)
            return SnapshotFault.Handle(k, v, k->Spaces + spaceIndex, address, write, fetch, self);
        Outcome outcome = MainFault.Handle(k, v, address, write, fetch, around);
        if (self && outcome == Outcome.Done)
            RegionWrites.MarkWritten(k, address);
        return outcome;
    }
}
