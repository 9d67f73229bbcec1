using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// What a program can ask of Privy (<see cref="SyscallDispatcher.PrivateCall"/>): snapshots of a part of its memory, which it reads itself. The Privy library's
/// privileged engine is made of this.
/// </summary>
internal static class ViewCalls
{
    /// <summary>Version of these calls: the result of <see cref="Operation.Version"/>.</summary>
    internal const long Version = 1;

    private enum Operation
    {
        /// <summary>→ <see cref="Version"/>.</summary>
        Version = 0,

        /// <summary>(start, length): a mapping of which snapshots will be taken.</summary>
        Register = 1,

        /// <summary>(start, length) → index; the view lies in the index's slot (<see cref="Kernel.Layout.ViewBase"/>).</summary>
        Take = 2,

        /// <summary>(index): nobody reads the view any more.</summary>
        Release = 3,

        /// <summary>(older, newer, start, length, address of a set of bits): what was written between two snapshots.</summary>
        Changed = 4,

        /// <summary>→ pages copied for snapshots so far.</summary>
        Copies = 5,

        /// <summary>→ page faults so far.</summary>
        Faults = 6,

        /// <summary>(index) → pages that were copied for the snapshot and none newer than it.</summary>
        Held = 7,
    }

    internal static void Register() =>
        SyscallDispatcher.RegisterPrivate((ISyscallContext context, in SyscallArguments a) =>
        {
            var thread = (GuestThread)context;
            // A forked child is a snapshot itself.
            if (!thread.Space.IsMain || thread.Process.SharesSpace)
                return -Errno.EPERM;
            return (Operation)a.A0 switch
            {
                Operation.Version => Version,
                Operation.Register => thread.RegisterRegion(a.A1, a.A2),
                Operation.Take => thread.TakeView(a.A1, a.A2),
                Operation.Release => thread.ReleaseView((int)a.A1),
                Operation.Changed => thread.ChangedBetween((int)a.A1, (int)a.A2, a.A3, a.A4, a.A5),
                Operation.Copies => thread.CountPages(faults: false),
                Operation.Faults => thread.CountPages(faults: true),
                Operation.Held => thread.PagesHeld((int)a.A1),
                _ => -Errno.EINVAL,
            };
        });
}
