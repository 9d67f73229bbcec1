namespace Privy.Bench.FaultLatency;

/// <summary>A situation in which pages are first written to.</summary>
internal sealed record FaultCase(int Writers, string Reader, string Order)
{
    public string Key => $"{Writers}.{Reader}.{Order}";

    /// <summary>"2 writers, reader scanning".</summary>
    public string Name =>
        (Writers == 1 ? "1 writer" : $"{Writers} writers") +
        Reader switch { "idle" => ", reader idle", "host" => ", reader in the host", _ => ", reader scanning" } +
        (Order == "sequential" ? ", pages in order" : "");
}
