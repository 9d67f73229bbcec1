namespace Privy.Integration.Tests;

/// <summary><c>privy soak</c>, for seconds in place of half an hour.</summary>
public sealed class SoakTests
{
    [PrivyFact(Needs.Redis | Needs.Privy)]
    public void Some_snapshots_are_right_in_every_byte()
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run([.. Launcher.Cli(), "soak", "--minutes", "0.08", "--data", "16M", "--rate", "500", "--seed", $"{Long.Seed}"], folder, limit: TimeSpan.FromSeconds(200));
        Assert.True(result.ExitCode == 0 && result.LeftOver.Count == 0, result.ToString());
        Assert.Matches("[1-9][0-9]* BGSAVEs, [1-9][0-9]* RDB files right in every byte", result.Text);
        Assert.Contains("nothing lost or wrong", result.Text, StringComparison.Ordinal);
    }
}
