namespace Privy;

/// <summary>How a <see cref="Checkpointer"/> works.</summary>
public sealed class CheckpointerOptions
{
    private readonly int _incrementsPerFull = 32;
    private readonly int _chains = 2;

    /// <summary>After so many incremental checkpoints comes a full one. 0: every checkpoint is full. 32 if nothing is said. A full one also comes when the increments of a chain have grown larger than its full checkpoint.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is negative.</exception>
    public int IncrementsPerFull
    {
        get => _incrementsPerFull;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            _incrementsPerFull = value;
        }
    }

    /// <summary>So many chains (a full checkpoint and its increments) are kept; older ones are deleted when a full checkpoint is complete. 2 if nothing is said.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is less than 1.</exception>
    public int ChainsKept
    {
        get => _chains;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            _chains = value;
        }
    }
}
