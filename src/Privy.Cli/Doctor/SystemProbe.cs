using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using System.Text;
using Privy.Bench;

namespace Privy.Cli.Doctor;

/// <summary>What apart from /dev/kvm itself decides whether, and how well, programs run.</summary>
internal static class SystemProbe
{
    private const string HugePages = "/sys/kernel/mm/transparent_hugepage/";

    /// <summary>The processor and the kernel.</summary>
    public static void ExamineProcessor(List<Check> checks)
    {
        if (RuntimeInformation.ProcessArchitecture != Architecture.X64)
        {
            checks.Add(new Check(Verdict.Problem, "processor", RuntimeInformation.ProcessArchitecture.ToString(), "Privy needs an x86-64 processor"));
            return;
        }

        var model = Machine.Field("/proc/cpuinfo", "model name") ?? "x86-64";
        checks.Add(Environment.ProcessorCount >= 2
            ? new Check(Verdict.Good, "processor", $"{Environment.ProcessorCount} × {model}, {PhysicalBits()} physical address bits")
            : new Check(Verdict.Warning, "processor", $"1 × {model}, {PhysicalBits()} physical address bits", "a program and its snapshots share one CPU; give the machine two or more"));
        checks.Add(new Check(Verdict.Good, "kernel", "Linux " + (Machine.Read("/proc/sys/kernel/osrelease") ?? "?") + (HypervisorName() is { } under ? $", in a virtual machine ({under})" : ", on bare metal")));
    }

    public static void ExamineMemory(List<Check> checks)
    {
        var available = Math.Min(Machine.AvailableMemory(), CgroupRest());
        checks.Add(available >= MemorySize.Gigabyte
            ? new Check(Verdict.Good, "memory", MemorySize.Format(available) + " available")
            : new Check(Verdict.Warning, "memory", MemorySize.Format(available) + " available", "a snapshot needs room for the pages changed while it lives; free some memory"));

        var huge = Machine.Selected(HugePages + "enabled");
        checks.Add(huge switch
        {
            "always" or "madvise" => new Check(Verdict.Good, "huge pages", huge),
            null => new Check(Verdict.Warning, "huge pages", "not in this kernel", "first touches and random access are slower; use a kernel with CONFIG_TRANSPARENT_HUGEPAGE"),
            _ => new Check(Verdict.Warning, "huge pages", huge, "first touches and random access are slower: 'echo madvise | sudo tee " + HugePages + "enabled'"),
        });
        if (huge is "always" or "madvise")
        {
            var defrag = Machine.Selected(HugePages + "defrag");
            checks.Add(defrag is "never" or "defer"
                ? new Check(Verdict.Warning, "huge pages, defragmentation", defrag, "huge pages are had only while memory is unfragmented: 'echo madvise | sudo tee " + HugePages + "defrag'")
                : new Check(Verdict.Good, "huge pages, defragmentation", defrag ?? "unknown"));
        }

        var overcommit = Machine.Read("/proc/sys/vm/overcommit_memory");
        checks.Add(overcommit == "2"
            ? new Check(Verdict.Warning, "overcommit", "2 (strict)", "large reservations can fail while memory is free: 'sudo sysctl vm.overcommit_memory=1'")
            : new Check(Verdict.Good, "overcommit", overcommit ?? "unknown"));
    }

    public static void ExamineLimits(List<Check> checks)
    {
        var files = Limit("Max open files");
        checks.Add(files is { } f && f < 4096
            ? new Check(Verdict.Warning, "open files (hard limit)", f.ToString(CultureInfo.InvariantCulture), "each connection of the program and each virtual CPU takes one: raise it in /etc/security/limits.conf or by LimitNOFILE= of the service")
            : new Check(Verdict.Good, "open files (hard limit)", Show(files, "")));

        checks.Add(new Check(Verdict.Good, "locked memory (hard limit)", Show(Limit("Max locked memory"), " bytes")));

        var space = Limit("Max address space");
        checks.Add(space is not null
            ? new Check(Verdict.Problem, "address space", Show(space, " bytes"), "the program's address window is reserved at once: 'ulimit -v unlimited'")
            : new Check(Verdict.Good, "address space", "unlimited"));

        if (long.TryParse(Machine.Read("/proc/sys/vm/max_map_count"), CultureInfo.InvariantCulture, out var maps))
        {
            checks.Add(maps < 65530
                ? new Check(Verdict.Warning, "mappings in a process", maps.ToString(CultureInfo.InvariantCulture), "'sudo sysctl vm.max_map_count=262144'")
                : new Check(Verdict.Good, "mappings in a process", maps.ToString(CultureInfo.InvariantCulture)));
        }
    }

    public static void ExamineServers(List<Check> checks)
    {
        var program = RedisServer.FindInstalled();
        checks.Add(program is null
            ? new Check(Verdict.Warning, "Redis", "not found in PATH", "'privy demo' then uses a built-in program; Debian: 'sudo apt-get install redis-server'")
            : new Check(Verdict.Good, "Redis", $"{program} {RedisServer.Version(program)}"));
    }

    private static string Show(long? limit, string unit) => limit is { } value ? value.ToString("#,0", CultureInfo.InvariantCulture) + unit : "unlimited";

    /// <summary>The hard limit: the runtime, like most servers, raises the soft one to it. Null is unlimited.</summary>
    private static long? Limit(string name)
    {
        try
        {
            foreach (var line in File.ReadLines("/proc/self/limits"))
            {
                if (!line.StartsWith(name, StringComparison.Ordinal)) continue;
                var columns = line[name.Length..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
                return columns.Length > 1 && long.TryParse(columns[1], CultureInfo.InvariantCulture, out var value) ? value : null;
            }
        }
        catch (IOException)
        {
            // No /proc: nothing known, nothing to complain about.
        }

        return null;
    }

    /// <summary>What the control group leaves of its memory limit.</summary>
    private static long CgroupRest()
    {
        var group = Machine.Read("/proc/self/cgroup")?.Split('\n').FirstOrDefault(l => l.StartsWith("0::", StringComparison.Ordinal))?[3..] ?? "/";
        var directory = "/sys/fs/cgroup" + (group == "/" ? "" : group);
        return long.TryParse(Machine.Read(directory + "/memory.max"), CultureInfo.InvariantCulture, out var max)
            && long.TryParse(Machine.Read(directory + "/memory.current"), CultureInfo.InvariantCulture, out var used)
            ? Math.Max(0, max - used)
            : long.MaxValue;
    }

    private static int PhysicalBits() => X86Base.IsSupported ? X86Base.CpuId(unchecked((int)0x80000008), 0).Eax & 0xff : 0;

    /// <summary>The signature at CPUID leaf 0x40000000, if the processor says that it is a virtual one (leaf 1, ECX bit 31).</summary>
    private static string? HypervisorName()
    {
        if (!X86Base.IsSupported || X86Base.CpuId(1, 0).Ecx >= 0) return null;
        var (_, b, c, d) = X86Base.CpuId(0x40000000, 0);
        var text = Encoding.Latin1.GetString(MemoryMarshal.AsBytes<int>([b, c, d])).TrimEnd('\0');
        return text.Length > 0 && text.All(char.IsAscii) && !text.Any(char.IsControl) ? text : "unnamed";
    }
}
