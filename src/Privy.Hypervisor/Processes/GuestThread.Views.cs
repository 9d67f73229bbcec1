using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Kernel;

namespace Privy.Hypervisor.Processes;

/// <summary>Snapshots that the program reads itself (<see cref="ViewCalls"/>).</summary>
internal sealed unsafe partial class GuestThread
{
    internal long RegisterRegion(ulong start, ulong length)
    {
        lock (Space.Changes)
        {
            if (!IsRange(start, length) || !Space.Mappings.Allows(start, start + length, Vma.Read | Vma.Write))
                return -Errno.EINVAL;
            return Space.Mappings.AddRegion(start, start + length) ? 0 : -Errno.ENOMEM;
        }
    }

    internal long TakeView(ulong start, ulong length)
    {
        lock (Space.Changes)
        {
            if (!IsRange(start, length) || !Space.Mappings.Allows(start, start + length, Vma.Region))
                return -Errno.EINVAL;
            var index = TakeSnapshot(start, start + length, () => Machine.Kernel.TakeView(Vcpu, start, start + length));
            if (index < 0)
                return index;
            Process.Table.Ready.ReplenishForView();
            return (long)(Layout.ViewBase + ((ulong)index * Layout.ViewSpan) + (start % Layout.ViewSpan));
        }
    }

    internal long ReleaseView(ulong view)
    {
        lock (Space.Changes)
        {
            if (!IsView(view, out var index))
                return -Errno.EINVAL;
            var result = Machine.Kernel.CloseView(Vcpu, index);
            if (result < 0)
                throw Vcpu.Defect($"releasing view {index}: errno {-result}");
            ((MainSpace)Space).ReleaseKept();
            return 0;
        }
    }

    internal long ChangedBetween(ulong olderView, ulong newerView, ulong start, ulong length, ulong bits)
    {
        const ulong pagesAtOnce = MainSpace.KernelBufferBytes * 8;
        lock (Space.Changes)
        {
            if (!IsView(olderView, out var older) || !IsView(newerView, out var newer) || !IsRange(start, length))
                return -Errno.EINVAL;
            for (ulong done = 0; done < length; done += pagesAtOnce * Layout.PageSize)
            {
                var bytes = Math.Min(length - done, pagesAtOnce * Layout.PageSize);
                var words = ((bytes / Layout.PageSize) + 63) / 64 * sizeof(ulong);
                var set = new Span<byte>((void*)MainSpace.KernelBuffer, (int)words);
                set.Clear();
                var result = Machine.Kernel.Changed(Vcpu, older, newer, start + done, start + done + bytes, MainSpace.KernelBuffer);
                if (result < 0)
                    return result;
                if (!Space.TryWrite(Vcpu, bits + (done / Layout.PageSize / 8), set))
                    return -Errno.EFAULT;
            }

            return 0;
        }
    }

    internal long CountPages(bool faults) => Machine.SumPages(faults);

    internal long PagesHeld(ulong view) => IsView(view, out var index) ? (long)(Machine.State->Spaces[index].LimboCount + (Machine.State->Spaces[index].BlockCount * Entry.Count)) : -Errno.EINVAL;

    private bool IsView(ulong view, out int index)
    {
        var slot = (view - Layout.ViewBase) / Layout.ViewSpan;
        index = (int)slot;
        return slot is > 0 and < Layout.MaxSpaces && (Machine.State->ViewMask >> index & 1) != 0;
    }

    private static bool IsRange(ulong start, ulong length) =>
        length != 0 && ((start | length) & (Layout.PageSize - 1)) == 0 && start + length > start && (start & ~(Layout.ViewSpan - 1)) == ((start + length - 1) & ~(Layout.ViewSpan - 1));
}
