namespace Privy.Bench;

/// <summary>A measurement could not be made; the message tells the user why.</summary>
public sealed class BenchException : Exception
{
    public BenchException()
    {
    }

    public BenchException(string message)
        : base(message)
    {
    }

    public BenchException(string message, Exception? inner)
        : base(message, inner)
    {
    }
}
