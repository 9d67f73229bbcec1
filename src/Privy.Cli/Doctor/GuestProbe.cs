using System.Diagnostics;
using Privy.Bench;
using Privy.Hypervisor.Diagnostics;
using Privy.Hypervisor.Host;
using Privy.Kvm;

namespace Privy.Cli.Doctor;

/// <summary>Starts a guest: nothing else proves that programs will run.</summary>
internal static class GuestProbe
{
    /// <summary>The check that says which kind of KVM this is.</summary>
    public const string KindName = "kind of KVM";

    private const string Name = "run a guest";

    // The probe takes a fraction of a second, on an emulated processor some seconds.
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    /// <summary>Adds what the guest shows at a place in the report.</summary>
    /// <returns>What it measured; null if it does not run.</returns>
    public static MachineCosts? Examine(List<Check> checks, int at, ICostProbe probe)
    {
        MachineCosts? measured = null;
        Exception? failure = null;
        var start = Stopwatch.GetTimestamp();
        // On a thread of its own, which ends with the process: a guest that never comes back must not keep the report from being printed.
        var thread = new Thread(() =>
        {
            try
            {
                measured = probe.Measure();
            }
            catch (Exception e)
            {
                failure = e;
            }
        })
        { IsBackground = true, Name = "privy-probe" };
        thread.Start();
        if (!thread.Join(Patience))
        {
            checks.Insert(at, new Check(Verdict.Problem, Name, $"no answer within {Patience.TotalSeconds:0} s", "the guest hangs: look at the kernel's log (dmesg) for lines with kvm, and try a newer kernel"));
            return null;
        }

        if (measured is null)
        {
            checks.Insert(at, Failed(failure!));
            return null;
        }

        var took = Stopwatch.GetElapsedTime(start);
        checks.InsertRange(at,
        [
            new Check(Verdict.Good, Name, $"works: page faults, copies and snapshots, in {took.TotalMilliseconds:0} ms"),
            Kind(measured),
            Syscalls(measured),
        ]);
        return measured;
    }

    /// <summary>What <c>--syscalls auto</c> comes to.</summary>
    private static Check Syscalls(MachineCosts measured)
    {
        const string name = "system calls";
        var exit = DoctorReport.Duration(measured.ExitNanoseconds);
        if (!measured.PollingPays)
            return new Check(Verdict.Good, name, $"by exits, which cost {exit} here");
        return Environment.ProcessorCount > 1
            ? new Check(Verdict.Good, name, $"posted to a polling thread while there are many, as an exit costs {exit}")
            : new Check(Verdict.Warning, name, $"by exits, which cost {exit} here", "a second processor would let a polling thread make them (a few microseconds each)");
    }

    /// <summary>Which kind of KVM this is, by what the guest showed; the modules only add why memory is slow.</summary>
    private static Check Kind(MachineCosts measured)
    {
        const string name = KindName;
        var ring0 = $"{DoctorReport.Duration(measured.Ring0Nanoseconds)} for an instruction in the guest's ring 0";
        if (!measured.SyscallEntersRing0)
            return new Check(Verdict.Good, name, $"paravirtual: {ring0}, SYSCALL stays in ring 3");
        if (!measured.Ring0IsNative)
            return new Check(Verdict.Warning, name, $"hardware interface, but ring 0 is emulated: {ring0}", "page faults are slow; see whether the machine below has nested virtualization in hardware");
        foreach (var (module, parameter) in (ReadOnlySpan<(string, string)>)[("kvm_intel", "ept"), ("kvm_amd", "npt")])
        {
            if (Machine.Read($"/sys/module/{module}/parameters/{parameter}") is "N" or "0")
                return new Check(Verdict.Warning, name, $"hardware: {ring0}; with shadow paging", $"nested paging is off: reload the module {module} with {parameter}=1");
        }

        return new Check(Verdict.Good, name, $"hardware: {ring0}");
    }

    private static Check Failed(Exception failure)
    {
        // A defect's message goes on with registers: the first line says what it is.
        var what = failure.Message.Split('\n')[0];
        return new Check(Verdict.Problem, Name, what, failure switch
        {
            KvmException { Errno: Errno.ENOMEM } => "there is not enough memory or address space; free some, raise the limit of this container, or see 'ulimit -v'",
            KvmException { Errno: Errno.EEXIST } => "the addresses that a program needs are taken in this process: start privy without debuggers and preloaded libraries (LD_PRELOAD)",
            KvmException { Errno: Errno.EMFILE } => "too few descriptors; raise 'ulimit -n'",
            KvmException { Errno: Errno.EPERM or Errno.EACCES } => "a security policy forbids it (seccomp, SELinux, AppArmor); allow the ioctls of /dev/kvm",
            KvmException => "look at the kernel's log (dmesg) for lines with kvm, and try a newer kernel",
            _ => "this KVM does something that Privy does not expect; please report this line and the kernel's version",
        });
    }
}
