using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// What a program can ask of Privy (<see cref="SyscallDispatcher.PrivateCall"/>): snapshots of a part of its memory, which it reads itself. The Privy library's
/// privileged engine is made of this.
/// </summary>
internal static class ViewCalls
{
    internal static void Register() =>
        SyscallDispatcher.RegisterPrivate((ISyscallContext context, in SyscallArguments a) =>
        {
            var thread = (GuestThread)context;
            // A forked child is a snapshot itself.
            if (!thread.Space.IsMain || thread.Process.SharesSpace)
                return -Errno.EPERM;
            return (ViewOperation)a.A0 switch
            {
                ViewOperation.Version => ViewProtocol.Version,
                ViewOperation.Register => thread.RegisterRegion(a.A1, a.A2),
                ViewOperation.Take => thread.TakeView(a.A1, a.A2),
                ViewOperation.Release => thread.ReleaseView(a.A1),
                ViewOperation.Changed => thread.ChangedBetween(a.A1, a.A2, a.A3, a.A4, a.A5),
                ViewOperation.Copies => thread.CountPages(faults: false),
                ViewOperation.Faults => thread.CountPages(faults: true),
                ViewOperation.Held => thread.PagesHeld(a.A1),
                _ => -Errno.EINVAL,
            };
        });
}
