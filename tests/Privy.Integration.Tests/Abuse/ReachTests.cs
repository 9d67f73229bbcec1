namespace Privy.Integration.Tests;

/// <summary>What a program can reach and what not (docs/security.md).</summary>
public sealed class ReachTests
{
    public static TheoryData<string> Cases() => TestPrograms.Cases("reach");

    /// <summary>Addresses and descriptors of the hypervisor: as if there were nothing, as natively.</summary>
    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases))]
    public void Nothing_of_the_hypervisor(string name) => TestPrograms.Run("reach", name);

    /// <summary>The same where calls are posted to a polling thread of the hypervisor, which has pointers to deal with as well.</summary>
    [PrivyTheory(Needs.Compiler)]
    [InlineData("inputs_made_often")]
    [InlineData("outputs_of_main")]
    public void Nothing_of_the_hypervisor_by_posted_calls(string name) => TestPrograms.Run("reach", name, options: ["--syscalls", "ring"]);

    /// <summary>Who may not choose the id of a new process: what a spawned program's pid is sent does not reach the hypervisor, one of whose threads would have it.</summary>
    [PrivyTheory(Needs.Compiler | Needs.Root)]
    [InlineData("spawned_child_by_its_pid_from_outside")]
    [InlineData("kill_right_after_spawn")]
    [InlineData("posix_spawn")]
    [InlineData("seen_from_outside")]
    public void Pids_without_the_right_to_choose_them(string name)
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run(["setpriv", "--bounding-set=-sys_admin,-checkpoint_restore", "--", .. Launcher.Command(TestPrograms.Build("forks"), [name])], folder, limit: TimeSpan.FromSeconds(120));
        Assert.True(result is { ExitCode: 0, LeftOver: [] } && Both.WithoutWarnings(result.Errors).Length == 0, result.ToString());
    }

    /// <summary>An ordinary user in the group of /dev/kvm. A device of that group is put over the machine's, for this process alone, so that the test does not depend on how it is set up.</summary>
    [PrivyFact(Needs.Root | Needs.Privy)]
    public void An_ordinary_user_of_the_group_kvm()
    {
        const string Group = "5078";
        using var folder = new TemporaryFolder();
        File.SetUnixFileMode(folder, (UnixFileMode)0b111_111_111);
        string Script(int mode, string command) => $"""
            set -e
            mknod kvm{mode} c 10 232; chgrp {Group} kvm{mode}; chmod {mode} kvm{mode}
            mount --bind kvm{mode} /dev/kvm
            cp -r {Path.GetDirectoryName(Launcher.Cli()[0])} bin{mode} && chmod -R a+rX bin{mode}
            exec setpriv --reuid=65534 --regid=65534 --groups={Group} --no-new-privs --bounding-set=-all -- {command}
            """;
        var result = ProcessRun.Run(["unshare", "--mount", "--propagation", "private", "bash", "-c", Script(660, "bin660/privy run -- bash -c 'id -u; id -G; (echo child); echo $((6*7)); kill -9 1 2>/dev/null || echo no; cat /etc/shadow 2>/dev/null || echo no'")], folder);
        Assert.True(result.ExitCode == 0 && result.Errors.Length == 0, result.ToString());
        Assert.Equal($"65534\n65534 {Group}\nchild\n42\nno\nno\n", result.Text);
        var refused = ProcessRun.Run(["unshare", "--mount", "--propagation", "private", "bash", "-c", Script(600, "bin600/privy run -- /bin/true")], folder);
        Assert.Equal(1, refused.ExitCode);
        Assert.Contains("/dev/kvm may not be opened: add yourself to the group kvm", refused.Errors, StringComparison.Ordinal);
        Assert.Single(refused.Errors.TrimEnd().Split('\n'));
    }
}
