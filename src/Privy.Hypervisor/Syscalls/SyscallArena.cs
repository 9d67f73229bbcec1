using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Syscalls;

/// <summary>
/// Native memory for one thread's system calls: staging buffers, replaced paths, copies of iovecs. Blocks never move, so
/// pointers into it stay good until <see cref="Reset"/>, which runs when the call ends. Not thread-safe: one per guest thread.
/// </summary>
public sealed unsafe class SyscallArena : IDisposable
{
    private const int FirstBlock = 64 << 10;

    /// <summary>What a thread keeps between calls; a rare huge transfer must not hold its memory for ever.</summary>
    private const long Kept = 4L << 20;

    private readonly List<(nint Start, long Length)> _blocks = [];
    private byte* _next;
    private byte* _end;

    /// <summary>Frees the memory of an arena that was not disposed.</summary>
    ~SyscallArena() => FreeBlocks();

    /// <summary>Memory with unspecified content, aligned to 16 bytes or a larger power of two.</summary>
    public byte* Allocate(long length, int alignment = 16)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        // Never null, not even for no bytes: to the kernel a null pointer often means "none".
        var rounded = Math.Max(16, (length + 15) & ~15L);
        var result = Aligned(alignment);
        // Compared as a difference: the pointer itself may lie beyond the block.
        if (_next == null || rounded > _end - result)
        {
            Grow(rounded + alignment);
            result = Aligned(alignment);
        }
        _next = result + rounded;
        return result;
    }

    /// <summary>Forgets all allocations.</summary>
    public void Reset()
    {
        if (_blocks.Count == 0) return;
        if (_blocks.Count > 1)
        {
            // Blocks grow, so the last one alone would have held the call: keep it unless it is unusually large.
            var last = _blocks[^1];
            _blocks.RemoveAt(_blocks.Count - 1);
            FreeBlocks();
            _blocks.Add(last);
        }
        if (_blocks[0].Length > Kept)
        {
            FreeBlocks();
            _next = _end = null;
            return;
        }
        _next = (byte*)_blocks[0].Start;
        _end = _next + _blocks[0].Length;
    }

    /// <summary>Frees the memory.</summary>
    public void Dispose()
    {
        FreeBlocks();
        _next = _end = null;
        GC.SuppressFinalize(this);
    }

    private byte* Aligned(int alignment) => (byte*)(((nuint)_next + (nuint)alignment - 1) & ~((nuint)alignment - 1));

    private void Grow(long atLeast)
    {
        var length = _blocks.Count == 0 ? FirstBlock : _blocks[^1].Length * 2;
        if (length < atLeast) length = atLeast;
        var start = (byte*)NativeMemory.Alloc((nuint)length);
        _blocks.Add(((nint)start, length));
        _next = start;
        _end = start + length;
    }

    private void FreeBlocks()
    {
        foreach (var block in _blocks) NativeMemory.Free((void*)block.Start);
        _blocks.Clear();
    }
}
