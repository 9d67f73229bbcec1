using System.Globalization;
using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Boot;

/// <summary>
/// What the system shows as the process' command line and environment (/proc/PID/cmdline, ps): the program's own strings on its stack, so that
/// a program that rewrites them to set its title succeeds.
/// </summary>
internal static unsafe class CommandLine
{
    /// <summary><c>struct prctl_mm_map</c> (linux/prctl.h).</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MemoryMap
    {
        internal ulong StartCode, EndCode, StartData, EndData, StartBreak, Break, StartStack, ArgumentStart, ArgumentEnd, EnvironmentStart, EnvironmentEnd;
        internal ulong AuxiliaryVector;
        internal uint AuxiliaryLength;
        internal uint ExecutableDescriptor;
    }

    private const long Prctl = 157;
    private const ulong SetMemory = 35;

    /// <summary>Sets the ranges; the arguments end where the environment begins. Where the kernel refuses, the host's own command line stays.</summary>
    internal static void Show(ulong arguments, ulong environment, ulong end)
    {
        const ulong argumentStart = 8, argumentEnd = 9, environmentStart = 10, environmentEnd = 11;
        // A range at a time needs CAP_SYS_RESOURCE. The window lies below the host's stack, so each start comes before its end.
        if (Set(argumentStart, arguments) && Set(argumentEnd, environment) && Set(environmentStart, environment) && Set(environmentEnd, end))
            return;
        SetAll(arguments, environment, end);
    }

    private static bool Set(ulong what, ulong address) => HostSyscall.Raw(Prctl, SetMemory, what, address) == 0;

    // All at once needs no privilege, but the other values must be given as they are.
    private static void SetAll(ulong arguments, ulong environment, ulong end)
    {
        const ulong map = 14;
        const long brk = 12;
        var stat = File.ReadAllText("/proc/self/stat");
        var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        ulong Field(int number) => ulong.Parse(fields[number - 3], CultureInfo.InvariantCulture);
        var all = new MemoryMap
        {
            StartCode = Field(26), EndCode = Field(27), StartStack = Field(28), StartData = Field(45), EndData = Field(46), StartBreak = Field(47),
            Break = (ulong)HostSyscall.Raw(brk, 0),
            ArgumentStart = arguments, ArgumentEnd = environment, EnvironmentStart = environment, EnvironmentEnd = end,
            ExecutableDescriptor = uint.MaxValue,
        };
        _ = HostSyscall.Raw(Prctl, SetMemory, map, (ulong)(&all), (ulong)sizeof(MemoryMap));
    }
}
