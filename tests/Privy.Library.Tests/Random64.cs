namespace Privy.Library.Tests;

/// <summary>A small generator (xorshift64*) whose sequence a seed repeats.</summary>
internal struct Random64(ulong seed)
{
    private ulong _state = seed * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019;

    internal ulong Next()
    {
        _state ^= _state >> 12;
        _state ^= _state << 25;
        _state ^= _state >> 27;
        return _state * 0x2545f4914f6cdd1d;
    }

    internal int Below(int bound) => (int)(Next() >> 33) % bound;
}
