namespace Privy.Cli.Doctor;

internal enum Verdict
{
    Good,

    /// <summary>Programs run, but slower or with a limit.</summary>
    Warning,

    /// <summary>No program can run.</summary>
    Problem,
}

/// <summary>One line of the report.</summary>
/// <param name="Verdict">How bad.</param>
/// <param name="Name">What was looked at.</param>
/// <param name="Value">What was found.</param>
/// <param name="Advice">What to do about it; null if nothing.</param>
internal sealed record Check(Verdict Verdict, string Name, string Value, string? Advice = null);
