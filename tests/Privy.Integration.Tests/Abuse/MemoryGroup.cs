namespace Privy.Integration.Tests.Abuse;

/// <summary>A control group of a test's own that bounds memory, in either version of the interface.</summary>
internal sealed class MemoryGroup : IDisposable
{
    private readonly string path;

    public MemoryGroup(long bytes)
    {
        var (parent, limit) = Parent ?? throw new InvalidOperationException("There is no control group for memory.");
        path = Path.Combine(parent, $"privy-test-{Environment.ProcessId}-{Guid.NewGuid():N}"[..32]);
        Directory.CreateDirectory(path);
        File.WriteAllText(Path.Combine(path, limit), $"{bytes}");
    }

    /// <summary>Where groups can be made and the name of the file with the limit; null where there is none.</summary>
    public static (string Path, string Limit)? Parent { get; } = Find();

    /// <summary>The command line that runs a command within the group.</summary>
    public string[] Command(IEnumerable<string> command) => ["bash", "-c", $"echo $$ >'{path}/cgroup.procs' && exec \"$@\"", "group", .. command];

    public void Dispose()
    {
        for (var attempt = 0; ; attempt++)
        {
            try
            {
                Directory.Delete(path);
                return;
            }
            catch (IOException) when (attempt < 20)
            {
                Thread.Sleep(100); // its processes are on their way out
            }
        }
    }

    private static (string, string)? Find()
    {
        foreach (var (root, limit) in new[] { ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max") })
        {
            var probe = Path.Combine(root, $"privy-probe-{Environment.ProcessId}");
            try
            {
                if (!Directory.Exists(root))
                    continue;
                Directory.CreateDirectory(probe);
                try
                {
                    if (File.Exists(Path.Combine(probe, limit)))
                    {
                        File.WriteAllText(Path.Combine(probe, limit), $"{1L << 30}");
                        return (root, limit);
                    }
                }
                finally
                {
                    Directory.Delete(probe);
                }
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
            }
        }

        return null;
    }
}
