namespace Privy.Kernel.Tests.Simulation;

/// <summary>The kernel did something a real machine, or the model, does not allow.</summary>
public sealed class SimulationException(string message) : Exception(message);
