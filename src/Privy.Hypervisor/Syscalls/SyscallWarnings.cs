using System.Collections.Concurrent;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Syscalls;

/// <summary>One line on stderr for each thing that is refused, the first time it happens.</summary>
internal static class SyscallWarnings
{
    private static readonly ConcurrentDictionary<string, bool> s_said = new();

    /// <summary>Where the lines go. Tests listen here.</summary>
    internal static Action<string> Write { get; set; } = ErrorOutput.WriteLine;

    internal static void Once(string message)
    {
        if (s_said.TryAdd(message, true)) Write("privy: warning: " + message);
    }
}
