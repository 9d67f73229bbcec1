namespace Privy.Kernel;

/// <summary>Which spaces are snapshots in use.</summary>
internal static unsafe class SnapshotSet
{
    internal static void Add(KernelState* k, int index)
    {
        k->Spaces[index].Active = Space.InUse;
        k->ActiveMask |= 1UL << index;
        FindNewest(k);
    }

    internal static void Remove(KernelState* k, int index)
    {
        k->ActiveMask &= ~(1UL << index);
        FindNewest(k);
    }

    private static void FindNewest(KernelState* k)
    {
        ulong newest = 0;
        for (int i = 1; i < Layout.MaxSpaces; i++)
        {
            if ((k->ActiveMask >> i & 1) != 0 && k->Spaces[i].Epoch > newest)
                newest = k->Spaces[i].Epoch;
        }
        k->NewestEpoch = newest;
    }
}
