// A .NET program for the integration tests. It does what programs on this runtime do and prints the same on every run.
using Privy.ManagedProgram;

var cases = new (string Name, Func<Task> Run)[]
{
    ("memory", Workloads.Memory),
    ("exceptions", Workloads.Exceptions),
    ("processes", Workloads.Processes),
    ("timers", Workloads.Timers),
    ("sockets", Workloads.Sockets),
    ("files", Workloads.Files),
    ("threads", Workloads.Threads),
    ("signals", Workloads.Signals),
    ("code", Workloads.Code),
};

foreach (var name in args.Length == 0 ? cases.Select(c => c.Name) : args)
{
    await cases.Single(c => c.Name == name).Run();
    Console.WriteLine($"OK {name}");
}

return 0;
