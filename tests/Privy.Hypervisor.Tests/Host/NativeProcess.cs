using System.Collections;
using System.Text;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;

namespace Privy.Hypervisor.Tests.Host;

/// <summary>Runs native programs for tests, by the code under test itself: System.Diagnostics.Process would install signal handlers.</summary>
internal static unsafe class NativeProcess
{
    internal static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);

    internal static byte[][] List(params string[] texts) => [.. texts.Select(Bytes)];

    internal static byte[][] Environment(params string[] more)
    {
        var list = new List<byte[]>();
        foreach (DictionaryEntry entry in System.Environment.GetEnvironmentVariables())
            list.Add(Bytes($"{entry.Key}={entry.Value}"));
        list.AddRange(more.Select(Bytes));
        return [.. list];
    }

    internal static int Wait(long pid)
    {
        Assert.True(pid > 0, $"spawn: {pid}");
        int status;
        long result;
        do
            result = HostSyscall.Raw(61, (ulong)pid, (ulong)&status);
        while (result == -Errno.EINTR);
        Assert.Equal(pid, result);
        return status;
    }

    internal static (int Status, string Output) Run(string path, string[] arguments, SignalSet ignored = default, SignalSet mask = default, string[]? environment = null, params SpawnAction[] actions)
    {
        int* ends = stackalloc int[2];
        Assert.Equal(0, HostSyscall.Raw(293, (ulong)ends, 0x80000));
        SpawnAction[] all = [new SpawnAction(33, (ulong)ends[1], 1), .. actions]; // dup2 to standard output
        long pid = NativeSpawn.Spawn(Bytes(path), List(arguments), Environment(environment ?? []), mask, ignored, all);
        HostSyscall.Raw(3, (ulong)ends[1]);
        var output = new MemoryStream();
        byte* buffer = stackalloc byte[4096];
        long read;
        while ((read = HostSyscall.Raw(0, (ulong)ends[0], (ulong)buffer, 4096)) > 0)
            output.Write(new ReadOnlySpan<byte>(buffer, (int)read));
        HostSyscall.Raw(3, (ulong)ends[0]);
        return (Wait(pid), Encoding.UTF8.GetString(output.ToArray()).Trim());
    }

    internal static int ExitOf(int status) => (status & 0x7f) == 0 ? status >> 8 & 0xff : -(status & 0x7f);
}
