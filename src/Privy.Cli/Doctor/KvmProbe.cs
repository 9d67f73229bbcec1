using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;

namespace Privy.Cli.Doctor;

/// <summary>
/// Asks /dev/kvm what it can do. Does not use Privy.Kvm on purpose: that throws at the first thing amiss, and
/// this is to say everything that is.
/// </summary>
internal static partial class KvmProbe
{
    private const string Device = "/dev/kvm";

    // linux/kvm.h
    private const nuint KVM_GET_API_VERSION = 0xAE00;
    private const nuint KVM_CREATE_VM = 0xAE01;
    private const nuint KVM_CHECK_EXTENSION = 0xAE03;
    private const nuint KVM_CREATE_VCPU = 0xAE41;
    private const int ApiVersion = 12;

    private const int O_RDWR = 2;
    private const int O_CLOEXEC = 0x80000;

    /// <summary>What Privy needs, and why it is in the list.</summary>
    private static readonly (int Number, string Name, int AtLeast)[] Needed =
    [
        (3, "KVM_CAP_USER_MEMORY", 1),
        (7, "KVM_CAP_EXT_CPUID", 1),
        // Memory that the host maps later, swaps or gives back must become visible to the guest.
        (16, "KVM_CAP_SYNC_MMU", 1),
        // One slot for each GB of the program's memory in use.
        (10, "KVM_CAP_NR_MEMSLOTS", 64),
        (55, "KVM_CAP_XSAVE", 1),
        (56, "KVM_CAP_XCRS", 1),
        // Bits 0 and 1: general and special registers through the run page, without an ioctl.
        (74, "KVM_CAP_SYNC_REGS", 3),
        (136, "KVM_CAP_IMMEDIATE_EXIT", 1),
    ];

    private static readonly (int Number, string Name)[] Limits = [(66, "virtual CPUs"), (10, "memory slots")];

    /// <summary>Adds a line per finding.</summary>
    public static void Examine(List<Check> checks)
    {
        var kvm = Open(Device, O_RDWR | O_CLOEXEC);
        if (kvm < 0)
        {
            checks.Add(CannotOpen(Marshal.GetLastPInvokeError()));
            return;
        }

        try
        {
            checks.Add(new Check(Verdict.Good, Device, "present, can be opened"));
            var version = Control(kvm, KVM_GET_API_VERSION, 0);
            if (version != ApiVersion)
            {
                // Nothing else it would say means anything.
                checks.Add(version < 0
                    ? new Check(Verdict.Problem, "KVM interface", $"{Device} is another device", "put the real one there: 'sudo mknod /dev/kvm c 10 232'; in a container, pass it in (--device /dev/kvm)")
                    : new Check(Verdict.Problem, "KVM interface", $"version {version}", $"Privy needs version {ApiVersion}, which Linux has had since 2.6.22"));
                return;
            }

            checks.Add(new Check(Verdict.Good, "KVM interface", $"version {version}"));

            var missing = Needed.Where(n => Control(kvm, KVM_CHECK_EXTENSION, n.Number) is var has && (n.Number == 74 ? (has & n.AtLeast) != n.AtLeast : has < n.AtLeast)).Select(n => n.Name).ToArray();
            checks.Add(missing.Length == 0
                ? new Check(Verdict.Good, "KVM capabilities", $"all {Needed.Length} that are needed; {string.Join(", ", Limits.Select(l => $"{Control(kvm, KVM_CHECK_EXTENSION, l.Number)} {l.Name}"))}")
                : new Check(Verdict.Problem, "KVM capabilities", "missing: " + string.Join(", ", missing), "this KVM is too old; Linux 4.17 or later has them"));
            checks.Add(CreateMachine(kvm));
        }
        finally
        {
            _ = Close(kvm);
        }
    }

    private static Check CreateMachine(int kvm)
    {
        const string Name = "create a virtual machine";
        var vm = Control(kvm, KVM_CREATE_VM, 0);
        if (vm < 0) return Failed(Marshal.GetLastPInvokeError());
        try
        {
            var vcpu = Control(vm, KVM_CREATE_VCPU, 0);
            if (vcpu < 0) return Failed(Marshal.GetLastPInvokeError());
            _ = Close(vcpu);
            return new Check(Verdict.Good, Name, "works");
        }
        finally
        {
            _ = Close(vm);
        }

        static Check Failed(int errno) => new(Verdict.Problem, Name, Marshal.GetPInvokeErrorMessage(errno), errno switch
        {
            Errno.EBUSY => "another hypervisor holds the processor's virtualization; stop it (VirtualBox, VMware)",
            Errno.ENOMEM => "there is not enough memory; free some, or raise the limit of this container",
            Errno.EMFILE => "too few descriptors; raise 'ulimit -n'",
            Errno.EPERM or Errno.EACCES => "a security policy forbids it (seccomp, SELinux, AppArmor); allow the ioctls of /dev/kvm",
            _ => "look at the kernel's log (dmesg) for lines with kvm",
        });
    }

    private static Check CannotOpen(int errno)
    {
        var (value, advice) = errno switch
        {
            Errno.ENOENT => ("absent", Absent()),
            Errno.EACCES or Errno.EPERM => ("no permission", "add yourself to its group: 'sudo usermod -aG kvm $USER', then log in again; in a container, allow the device"),
            Errno.ENODEV or 6 /* ENXIO */ => ("present, but no driver behind it", Absent()),
            _ => (Marshal.GetPInvokeErrorMessage(errno), "look at the kernel's log (dmesg) for lines with kvm"),
        };
        return new Check(Verdict.Problem, Device, value, advice);
    }

    private static string Absent()
    {
        if (Directory.Exists("/sys/module/kvm_intel") || Directory.Exists("/sys/module/kvm_amd") || Directory.Exists("/sys/module/kvm_pvm"))
            return "the kernel has KVM, but this /dev has no device for it: in a container, pass it in (--device /dev/kvm); else 'sudo mknod /dev/kvm c 10 232'";
        var flags = Bench.Machine.Field("/proc/cpuinfo", "flags")?.Split(' ') ?? [];
        if (flags.Contains("svm")) return "load the module: 'sudo modprobe kvm_amd'; in a container, pass the device in (--device /dev/kvm)";
        if (flags.Contains("vmx")) return "load the module: 'sudo modprobe kvm_intel'; in a container, pass the device in (--device /dev/kvm)";
        return flags.Contains("hypervisor")
            ? "this is a virtual machine without nested virtualization: enable it on its host, or choose an instance type that has it; in a container, pass the device in (--device /dev/kvm)"
            : "the processor's virtualization is off: enable VT-x or SVM in the firmware's set-up";
    }

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Control(int descriptor, nuint request, nint argument);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int Close(int descriptor);
}
