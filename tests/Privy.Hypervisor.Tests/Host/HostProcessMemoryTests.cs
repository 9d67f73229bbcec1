using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Tests.Host;

public sealed class HostProcessMemoryTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory().FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void The_tightest_group_decides_and_each_time_anew()
    {
        Write("meminfo", "MemTotal:       24000000 kB\nMemAvailable:       8000 kB\nBuffers: 1 kB\n");
        Write("cgroup", "0::/a/b\n");
        Write("root/memory.stat", "not looked at\n");
        Write("root/a/memory.max", "max\n");
        Write("root/a/memory.current", "5\n");
        Write("root/a/b/memory.max", "1000000\n");
        Write("root/a/b/memory.current", "400000\n");
        var memory = new HostProcessMemory(Path("meminfo"), Path("cgroup"), Path("root"));
        Assert.Equal(600_000UL, memory.Available());
        Write("root/a/b/memory.current", "2000000\n");
        Assert.Equal(0UL, memory.Available());
        Write("root/a/b/memory.max", "max\n");
        Assert.Equal(8000UL << 10, memory.Available());
        Write("root/a/memory.max", "105\n");
        Assert.Equal(100UL, memory.Available());
    }

    [Fact]
    public void Where_nothing_can_be_read_there_is_nothing()
    {
        Assert.Equal(0UL, new HostProcessMemory(Path("none"), Path("none"), Path("none")).Available());
        Write("meminfo", "MemAvailable: 3 kB\n");
        Write("cgroup", "4:memory:/a\n");
        Assert.Equal(3UL << 10, new HostProcessMemory(Path("meminfo"), Path("cgroup"), Path("none")).Available());
    }

    private string Path(string name) => System.IO.Path.Combine(_folder, name);

    private void Write(string name, string text)
    {
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(Path(name))!);
        File.WriteAllText(Path(name), text);
    }
}
