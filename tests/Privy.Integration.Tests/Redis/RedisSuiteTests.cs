namespace Privy.Integration.Tests;

/// <summary>The runner of Redis' own tests.</summary>
public sealed class RedisSuiteTests
{
    /// <summary>The table names the commit of the program that ran, not one that was made since.</summary>
    [PrivyFact(Needs.NoKvm)]
    public void The_commit_is_that_of_the_program()
    {
        using var folder = new TemporaryFolder();
        RunResult Script(string text) => ProcessRun.Run(["bash", "-c", "set -e; " + text], folder);
        string commit = $"'{Path.Combine(Launcher.Root, "tests/redis-suite/commit")}' .", quietly = "-c user.name=test -c user.email=test@localhost commit -q -m";

        var setUp = Script($"mkdir src artifacts; touch global.json Directory.Build.props Directory.Packages.props src/a; git init -q .; echo artifacts >.gitignore; git add -A; git {quietly} first; git rev-parse --short HEAD");
        Assert.True(setUp.ExitCode == 0, setUp.ToString());
        var first = setUp.Text.Trim();

        var unbuilt = Script(commit);
        Assert.Equal(1, unbuilt.ExitCode);
        Assert.Contains("./privy version", Assert.Single(unbuilt.Errors.TrimEnd().Split('\n')), StringComparison.Ordinal);

        // Times are set, not waited for: files may be made within one tick of the clock.
        Assert.Equal(first + "\n", Script($"touch -d '+1 hour' artifacts/cli.stamp; {commit}").Text);
        Assert.Equal(first + " with changes\n", Script($"echo new >src/b; {commit}").Text);
        Assert.Equal(first + "\n", Script($"rm src/b; echo new >README; {commit}").Text);
        var stale = Script($"touch -d '+2 hours' src/a; {commit}");
        Assert.Equal(1, stale.ExitCode);
        Assert.StartsWith("src/a is newer than", Assert.Single(stale.Errors.TrimEnd().Split('\n')), StringComparison.Ordinal);
        Assert.Equal("", stale.Text);

        var second = Script($"git add -A; git {quietly} second; touch -d '+3 hours' artifacts/cli.stamp; {commit}").Text;
        Assert.NotEqual(first + "\n", second);
        Assert.Equal(Script("git rev-parse --short HEAD").Text, second);
    }
}
