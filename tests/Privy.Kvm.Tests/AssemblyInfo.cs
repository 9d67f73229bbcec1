// One test counts this process' descriptors.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
