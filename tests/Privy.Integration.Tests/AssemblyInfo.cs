using System.Runtime.Versioning;

[assembly: SupportedOSPlatform("linux")]
// Virtual machines, native servers and load generators would measure each other on a machine with two processors.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
