using Privy.Bench;
using Privy.Hypervisor;
using Privy.Hypervisor.Host;

namespace Privy.Cli.Tests;

public class NativeTests
{
    [Fact]
    public void The_built_in_program_sees_exact_snapshots()
    {
        var snapshots = SnapshotArray.Run([], 16 << 20, 5);
        Assert.Equal(5, snapshots.Count);
        Assert.All(snapshots, s => Assert.True(s.IsExact));
        Assert.All(snapshots, s => Assert.True(s.Fork > TimeSpan.Zero));
    }

    [Fact]
    public void Programs_are_found_as_a_shell_finds_them()
    {
        var directory = Directory.CreateTempSubdirectory("privy-test-").FullName;
        try
        {
            var plain = Path.Combine(directory, "tool");
            File.WriteAllText(plain, "#!/bin/sh\n");
            File.SetUnixFileMode(plain, UnixFileMode.UserRead);
            Assert.Null(ProgramSearch.Find("tool", directory, out var errno));
            Assert.Equal(Errno.EACCES, errno);
            Assert.Equal(126, ProgramSearch.ExitStatus(errno));

            File.SetUnixFileMode(plain, UnixFileMode.UserRead | UnixFileMode.UserExecute);
            Assert.Equal(plain, ProgramSearch.Find("tool", "/nonexistent:" + directory, out _));
            Assert.Equal(plain, ProgramSearch.Find(plain, "", out _));

            Assert.Null(ProgramSearch.Find("another", directory, out errno));
            Assert.Equal(Errno.ENOENT, errno);
            Assert.Equal(127, ProgramSearch.ExitStatus(errno));

            Assert.Null(ProgramSearch.Find(directory, "", out errno));
            Assert.Equal(Errno.EACCES, errno);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    /// <summary>The load generator against a real server: closed and open loop, both kinds of request, every one counted.</summary>
    [Fact]
    public void Load_on_a_native_server()
    {
        if (RedisServer.FindInstalled() is not { } program) return;
        using var server = RedisServer.Start(new RedisServerOptions { Program = program });
        var closed = LoadGenerator.Run(new LoadOptions { Port = server.Port, Connections = 3, Threads = 2, Outstanding = 16, KeyCount = 10_000, Keys = KeyDistribution.Sequential, ValueSize = 100, Requests = 10_000 });
        Assert.Equal(10_000, closed.Requests);
        Assert.Equal(10_000, closed.Writes.TotalCount);
        Assert.Equal(0, closed.Errors);
        Assert.Equal("10000", server.Control.Command("DBSIZE"));
        Assert.Equal("100", server.Control.Command("STRLEN", "key:000000009999"));

        var open = LoadGenerator.Run(new LoadOptions { Port = server.Port, Connections = 2, ReadRatio = 0.5, Keys = KeyDistribution.Gaussian, KeyCount = 10_000, ValueSize = 100, Rate = 2000, Duration = TimeSpan.FromSeconds(1) });
        Assert.InRange(open.Requests, 1900, 2001);
        Assert.InRange(open.Reads.TotalCount, 800, 1200);
        Assert.Equal(open.Requests, open.Reads.TotalCount + open.Writes.TotalCount);
        Assert.Equal("10000", server.Control.Command("DBSIZE"));

        var picture = Path.Combine(Path.GetTempPath(), $"privy-test-{Environment.ProcessId}.png");
        LatencyPlot.Save(picture, "test", [new LatencyCurve("native", open.Series, TimeSpan.FromSeconds(0.2), TimeSpan.FromSeconds(0.4), "#c8442f")]);
        Assert.Equal(0x89, File.ReadAllBytes(picture)[0]);
        File.Delete(picture);

        // A refused request is counted as one.
        server.Control.Command("CONFIG", "SET", "maxmemory", "1");
        var refused = LoadGenerator.Run(new LoadOptions { Port = server.Port, Requests = 100 });
        Assert.Equal(100, refused.Errors);
        Assert.StartsWith("OOM", refused.FirstError, StringComparison.Ordinal);
    }
}
