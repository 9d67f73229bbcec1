namespace Privy.Bench;

/// <summary>Fills a server with the keys that the load generator uses.</summary>
internal static class DataLoading
{
    /// <summary>Sets every key once.</summary>
    public static void Load(RedisServer server, long keys, int valueSize, double compressible, Action<double> progress, CancellationToken cancellation)
    {
        var generator = LoadGenerator.Start(new LoadOptions
        {
            Port = server.Port,
            Connections = 2,
            Outstanding = 128,
            KeyCount = keys,
            ValueSize = valueSize,
            Compressible = compressible,
            Keys = KeyDistribution.Sequential,
        });
        while (!generator.HasEnded && !cancellation.IsCancellationRequested)
        {
            progress((double)generator.Completed / keys);
            cancellation.WaitHandle.WaitOne(50);
        }

        if (cancellation.IsCancellationRequested) generator.Stop();
        var result = generator.Wait(cancellation);
        if (result.Errors > 0) throw new BenchException($"the server refused {result.Errors:#,0} SETs: {result.FirstError}");
        progress(1);
    }
}
