using System.Diagnostics;
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
            return Space.Mappings.SetFlags(start, start + length, 0, Vma.Region) ? 0 : -Errno.ENOMEM;
        }
    }

    internal long TakeView(ulong start, ulong length)
    {
        lock (Space.Changes)
        {
            if (!IsRange(start, length) || !Space.Mappings.Allows(start, start + length, Vma.Region))
                return -Errno.EINVAL;
            var begin = Stopwatch.GetTimestamp();
            // As at a fork: at this instant no vCPU is in the program.
            Space.Gate.Close(ExpelOthers);
            try
            {
                Space.PrepareSnapshot();
                var index = Machine.Kernel.CreateSnapshot(Vcpu, Space.Index);
                if (index < 0)
                    return index;
                var result = Machine.Kernel.OpenView(Vcpu, (int)index, start, start + length);
                if (result < 0)
                {
                    _ = Machine.Kernel.Release(Vcpu, (int)index);
                    return result;
                }

                // The process has no other life now, with pages of its own that it always writes first.
                Machine.State->EarlyVcpu = 0;
                foreach (var thread in Process.Table.ThreadsIn(Space))
                    thread.PrepareOutputsInFlight(Vcpu);
                Process.Table.Snapshots.Add((long)Stopwatch.GetElapsedTime(begin).TotalNanoseconds);
                return index;
            }
            finally
            {
                Space.Gate.Open();
            }
        }
    }

    internal long ReleaseView(int index)
    {
        lock (Space.Changes)
        {
            if (!IsView(index))
                return -Errno.EINVAL;
            var main = (MainSpace)Space;
            var result = Machine.Kernel.CloseView(Vcpu, index);
            if (result < 0)
                return result;
            // No vCPU may walk the tables any more when they become something else.
            main.FlushAll(Vcpu);
            result = Machine.Kernel.Release(Vcpu, index);
            if (result < 0)
                throw Vcpu.Defect($"releasing view {index}: errno {-result}");
            main.ReleaseKept();
            return 0;
        }
    }

    internal long ChangedBetween(int older, int newer, ulong start, ulong length, ulong bits)
    {
        const ulong pagesAtOnce = MainSpace.KernelBufferBytes * 8;
        lock (Space.Changes)
        {
            if (!IsView(older) || !IsView(newer) || !IsRange(start, length))
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

    internal long PagesHeld(int index) => IsView(index) ? (long)Machine.State->Spaces[index].LimboCount : -Errno.EINVAL;

    private bool IsView(int index) => index > 0 && index < Layout.MaxSpaces && (Machine.State->ViewMask >> index & 1) != 0;

    private static bool IsRange(ulong start, ulong length) =>
        length != 0 && ((start | length) & (Layout.PageSize - 1)) == 0 && start + length > start && (start & ~(Layout.ViewSpan - 1)) == ((start + length - 1) & ~(Layout.ViewSpan - 1));
}
