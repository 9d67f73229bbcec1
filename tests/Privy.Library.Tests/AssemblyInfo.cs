using System.Runtime.Versioning;

[assembly: SupportedOSPlatform("linux")]
// Each test loads the processors with threads of its own.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
