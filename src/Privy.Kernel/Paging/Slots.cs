namespace Privy.Kernel;

/// <summary>
/// Memory slots, made by the host a gigabyte at a time. An entry that points where no slot is turns every access into
/// an MMIO exit, so the slot comes first.
/// </summary>
internal static unsafe class Slots
{
    internal static Outcome Ensure(KernelState* k, VcpuArea* v, ulong physical)
    {
        ulong gigabyte = physical >> 30;
        if ((System.Threading.Volatile.Read(ref k->SlotBitmap[gigabyte >> 6]) >> (int)(gigabyte & 63) & 1) != 0)
            return Outcome.Done;
        v->PendingSlot = physical;
        return Outcome.NeedSlot;
    }
}
