using System.Runtime;
using System.Threading;

namespace Privy.Resident;

/// <summary>
/// The portable engine's critical part: it answers write faults and takes snapshots.
/// <para>It must not be managed code. A managed thread that writes to a protected page sleeps in the kernel, at a place where the garbage collector
/// cannot stop it. If what answers the fault could be stopped for a collection, or waited for something that could, each would wait
/// for the other forever. So the handler is a thread unknown to the runtime, and whatever holds the lock runs here, where no collection stops it.</para>
/// <para><b>The pages.</b> The region is a shared mapping of a memory file; a view is a private mapping of the same file. A page of a view shows
/// the file's page until somebody makes the kernel break the sharing, which is what the handler does, for each view that needs the page, before it lets a write through.</para>
/// <para><b>The instant.</b> Take holds the lock while it protects the pages that were writable. A write to a page that is still writable happens
/// before the instant, which is the end of that pass; a write to a page that is protected again waits for the handler, which waits for the lock, so
/// happens after it. No write that is in the snapshot can depend on one that is not, as that one has not happened yet.</para>
/// </summary>
internal static unsafe class Resident
{
    private const int EventSize = 32;
    private const int EventCount = 64;
    private const byte PageFaultEvent = 0x12;

    /// <summary>Protecting a page that is protected already costs a tenth of another call.</summary>
    private const ulong Gap = 8;

    private const ulong PageSize = 4096;
    private const int PageShift = 12;

    private const int Again = -11;
    private const int Interrupted = -4;

    /// <summary>The handler's thread. Ends when <see cref="RegionState.Stop"/> becomes readable.</summary>
    [RuntimeExport("privy_handle_faults")]
    private static long HandleFaults(RegionState* s)
    {
        // No signal of the program is handled on this thread.
        long* all = (long*)s->Events;
        *all = -1;
        Call(s, SystemCall.RtSigprocmask, 0, (long)all, 0, 8);

        int* poll = (int*)s->Poll;
        for (; ; )
        {
            poll[0] = s->Faults;
            poll[1] = 1;
            poll[2] = s->Stop;
            poll[3] = 1;
            Call(s, SystemCall.Poll, (long)poll, 2, -1);
            if ((poll[3] >> 16) != 0)
                return 0;
            Enter(s);
            // Under the lock, so that no snapshot comes between the arrival of an event and its answer: a page would count as written that was not.
            long bytes = Call(s, SystemCall.Read, s->Faults, (long)s->Events, EventSize * EventCount);
            for (long at = 0; at + EventSize <= bytes; at += EventSize)
            {
                byte* e = s->Events + at;
                if (e[0] == PageFaultEvent)
                    Fault(s, *(ulong*)(e + 16) & ~(PageSize - 1));
            }
            Leave(s);
        }
    }

    /// <summary>Links <paramref name="node"/>, whose view is mapped, as the newest snapshot. <paramref name="written"/> is an empty set of pages.</summary>
    /// <returns>0 or a negative errno; then nothing has changed.</returns>
    [RuntimeExport("privy_take")]
    private static long Take(RegionState* s, SnapshotNode* node, ulong* written)
    {
        Enter(s);
        long result = s->Armed == 0 ? Protect(s, 0, s->Length >> PageShift) : ProtectWritten(s);
        if (result == 0)
        {
            s->Armed = 1;
            node->Changed = s->Written;
            s->Written = written;
            node->Newer = null;
            node->Older = s->Newest;
            if (node->Older != null)
                node->Older->Newer = node;
            s->Newest = node;
        }
        Leave(s);
        return result;
    }

    /// <summary>From here on nothing is copied for the view of <paramref name="node"/>, which the caller unmaps.</summary>
    [RuntimeExport("privy_close_view")]
    private static long CloseView(RegionState* s, SnapshotNode* node)
    {
        Enter(s);
        node->View = null;
        Leave(s);
        return 0;
    }

    /// <summary>Takes <paramref name="node"/> out of the chain. What had changed before it then has changed before its successor.</summary>
    /// <returns>A set of pages that is no longer used, or 0.</returns>
    [RuntimeExport("privy_unlink")]
    private static long Unlink(RegionState* s, SnapshotNode* node)
    {
        Enter(s);
        SnapshotNode* older = node->Older;
        SnapshotNode* newer = node->Newer;
        if (older != null)
        {
            older->Newer = newer;
            // In the set of pages written since the newest snapshot these are protected, unlike the others. It does no harm: a write to one is let
            // through without a copy, which nobody needs, and the next snapshot protects it once more.
            if (newer == null)
                Add(s, s->Written, node->Changed);
            else
                Add(s, newer->Changed, node->Changed);
        }
        if (newer != null)
            newer->Older = older;
        else
            s->Newest = older;
        Leave(s);
        return (long)node->Changed;
    }

    /// <summary>Adds the pages written between two snapshots of the chain to a set.</summary>
    [RuntimeExport("privy_changed")]
    private static long Changed(RegionState* s, SnapshotNode* newer, SnapshotNode* older, ulong* pages)
    {
        Enter(s);
        for (SnapshotNode* n = newer; n != older; n = n->Older)
            Add(s, pages, n->Changed);
        Leave(s);
        return 0;
    }

    // ilc's start-up code for native libraries refers to these two; nothing calls it.
    [RuntimeExport("RhpReversePInvoke")]
    private static void ReversePInvoke(void* frame) { }

    [RuntimeExport("RhpReversePInvokeReturn")]
    private static void ReversePInvokeReturn(void* frame) { }

    private static void Fault(RegionState* s, ulong address)
    {
        ulong offset = address - (ulong)s->Memory;
        if (offset >= s->Length)
            return;
        ulong page = offset >> PageShift;
        s->FaultCount++;
        if (!Has(s->Written, page))
        {
            // A view needs the old bytes if nobody has written to the page since its snapshot: else it got its copy then.
            for (SnapshotNode* n = s->Newest; n != null; n = n->Older)
            {
                if (n->View != null && n->Lost == 0)
                    Copy(s, n, offset);
                if (Has(n->Changed, page))
                    break;
            }
            s->Written[page >> 6] |= 1ul << (int)(page & 63);
        }
        WriteProtect(s, offset, PageSize, 0);
    }

    private static void Copy(RegionState* s, SnapshotNode* n, ulong offset)
    {
        long result;
        do
        {
            // A write fault without a write: the kernel gives the private mapping a page of its own, with the bytes of the shared one.
            result = Call(s, SystemCall.Madvise, (long)(n->View + offset), (long)PageSize, SystemCall.PopulateWrite);
        }
        while (result is Interrupted or Again);
        if (result == 0)
        {
            n->Copies++;
            s->CopyCount++;
            return;
        }
        // Without the copy this view would show bytes from after its instant. Nobody may read it any more.
        n->Lost = (int)-result;
        s->LostCount++;
        Call(s, SystemCall.Mmap, (long)n->View, (long)s->Length, 0, SystemCall.MapPrivate | SystemCall.MapAnonymous | SystemCall.MapFixed | SystemCall.MapNoReserve, -1, 0);
    }

    private static long ProtectWritten(RegionState* s)
    {
        ulong words = s->Length >> (PageShift + 6);
        if ((words << (PageShift + 6)) != s->Length)
            words++;
        ulong start = 0;
        ulong end = 0;
        for (ulong w = 0; w < words; w++)
        {
            ulong bits = s->Written[w];
            if (bits == 0)
                continue;
            for (int b = 0; bits != 0; b++, bits >>= 1)
            {
                if ((bits & 1) == 0)
                    continue;
                ulong page = (w << 6) + (ulong)b;
                if (end != 0 && page - end > Gap)
                {
                    long result = Protect(s, start, end);
                    if (result != 0)
                        return result;
                    end = 0;
                }
                if (end == 0)
                    start = page;
                end = page + 1;
            }
        }
        return end == 0 ? 0 : Protect(s, start, end);
    }

    private static long Protect(RegionState* s, ulong firstPage, ulong endPage)
    {
        s->ProtectCalls++;
        s->ProtectedPages += endPage - firstPage;
        return WriteProtect(s, firstPage << PageShift, (endPage - firstPage) << PageShift, 1);
    }

    /// <summary>Taking the protection away also wakes the writers.</summary>
    private static long WriteProtect(RegionState* s, ulong offset, ulong length, ulong mode)
    {
        long result;
        do
        {
            WriteProtectArgument argument;
            argument.Start = (ulong)s->Memory + offset;
            argument.Length = length;
            argument.Mode = mode;
            result = Call(s, SystemCall.Ioctl, s->Faults, SystemCall.UffdioWriteProtect, (long)&argument);
        }
        while (result is Interrupted or Again);
        return result;
    }

    private struct WriteProtectArgument
    {
        internal ulong Start;
        internal ulong Length;
        internal ulong Mode;
    }

    private static bool Has(ulong* set, ulong page) => set != null && (set[page >> 6] & (1ul << (int)(page & 63))) != 0;

    private static void Add(RegionState* s, ulong* to, ulong* from)
    {
        if (from == null)
            return;
        ulong words = ((s->Length >> PageShift) + 63) >> 6;
        for (ulong w = 0; w < words; w++)
        {
            // A word is written only where there is something to add: untouched parts of a set take no memory.
            if (from[w] != 0)
                to[w] |= from[w];
        }
    }

    private static void Enter(RegionState* s)
    {
        if (Interlocked.CompareExchange(ref s->Lock, 1, 0) == 0)
            return;
        while (Interlocked.Exchange(ref s->Lock, 2) != 0)
            Call(s, SystemCall.Futex, (long)&s->Lock, SystemCall.FutexWait, 2, 0);
    }

    private static void Leave(RegionState* s)
    {
        if (Interlocked.Exchange(ref s->Lock, 0) == 2)
            Call(s, SystemCall.Futex, (long)&s->Lock, SystemCall.FutexWake, 1, 0);
    }

    private static long Call(RegionState* s, long number, long a, long b, long c, long d = 0, long e = 0, long f = 0) =>
        ((delegate*<long, long, long, long, long, long, long, long>)s->Syscall)(number, a, b, c, d, e, f);
}
