using System.Runtime.Versioning;

[assembly: SupportedOSPlatform("linux")]
// Two classes at a time: much of a test is waiting for one process, and no test looks at how long something takes. More would have each other wait on a machine
// with two processors.
[assembly: CollectionBehavior(MaxParallelThreads = 2)]
