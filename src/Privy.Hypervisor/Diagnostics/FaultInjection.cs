using System.Globalization;

namespace Privy.Hypervisor.Diagnostics;

/// <summary>Where a failure can be made to happen.</summary>
internal enum FaultPoint
{
    /// <summary>An entry into the guest, which then ends at once as if a signal had come.</summary>
    Entry,

    /// <summary>A call of the host kernel that maps memory for the program: ENOMEM.</summary>
    Mapping,

    /// <summary>A new memory slot: ENOMEM.</summary>
    Slot,

    /// <summary>A new vCPU, or one for a new thread or child: EAGAIN.</summary>
    Vcpu,
}

/// <summary>
/// Failures on purpose, for tests: the variable PRIVY_FAULTS, such as <c>seed=7,entry=2,kick=200,mapping=20,slot=4,vcpu=3,frames=500</c>. The first, third,
/// fourth and fifth happen once in so many times on average; kick is the mean time in microseconds between two kicks of vCPUs, wherever they
/// stand; frames is how many frames there are for copies. Without the variable each point costs one look at a field.
/// </summary>
internal static class FaultInjection
{
    private static readonly int[] s_oneIn = new int[4];
    private static ulong s_seed;
    private static bool s_begun;
    private static int s_threads;

    [ThreadStatic]
    private static ulong t_random;

    /// <summary>Whether the variable is set.</summary>
    internal static bool IsOn { get; private set; }

    /// <summary>Mean time between kicks in microseconds; 0: none.</summary>
    internal static int KickMicroseconds { get; private set; }

    /// <summary>Frames in the pool; 0: as many as there is room for.</summary>
    internal static ulong Frames { get; private set; }

    /// <summary>Reads the variable.</summary>
    internal static void Initialize()
    {
        if (Environment.GetEnvironmentVariable("PRIVY_FAULTS") is not { Length: > 0 } text)
            return;
        foreach (var part in text.Split(','))
        {
            var words = part.Split('=');
            if (words.Length != 2 || !uint.TryParse(words[1], CultureInfo.InvariantCulture, out var value) || !Set(words[0], value))
                throw new IOException($"PRIVY_FAULTS: '{part}' is none of seed, entry, kick, mapping, slot, vcpu and frames with a number");
        }

        IsOn = true;
    }

    /// <summary>The program is about to run: from now on things fail.</summary>
    internal static void Begin() => s_begun = IsOn;

    /// <summary>Whether this one is to fail.</summary>
    internal static bool Fails(FaultPoint point) => s_begun && s_oneIn[(int)point] is > 0 and var oneIn && Next() % (ulong)oneIn == 0;

    /// <summary>A random number of the calling thread.</summary>
    internal static ulong Next()
    {
        if (t_random == 0)
            t_random = (s_seed * 0x9E3779B97F4A7C15) + ((ulong)Interlocked.Increment(ref s_threads) * 0xD1B54A32D192ED03) + 1;
        t_random ^= t_random << 13;
        t_random ^= t_random >> 7;
        return t_random ^= t_random << 17;
    }

    private static bool Set(string name, uint value)
    {
        switch (name)
        {
            case "seed":
                s_seed = value;
                return true;
            case "kick":
                KickMicroseconds = (int)value;
                return true;
            case "frames":
                Frames = value;
                return true;
            default:
                if (!Enum.TryParse<FaultPoint>(name, ignoreCase: true, out var point) || !Enum.IsDefined(point))
                    return false;
                s_oneIn[(int)point] = (int)value;
                return true;
        }
    }
}
