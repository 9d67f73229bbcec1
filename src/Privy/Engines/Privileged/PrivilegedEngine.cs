using System.Runtime.InteropServices;
using Privy.Engines.Portable;

namespace Privy.Engines.Privileged;

/// <summary>
/// Snapshots under <c>privy run</c>: the guest's kernel takes them like those of a fork, and shows them to the program at another place. The calls
/// are those of src/Privy.Hypervisor/Processes/ViewCalls.cs.
/// </summary>
internal sealed unsafe class PrivilegedEngine : ISnapshotEngine
{
    private const long PrivateCall = 0x50525659;
    private const long Version = 1;
    private const long ViewBase = 0x3000_0000_0000;

    /// <summary>What one entry of a top-level page table maps: a region lies within one.</summary>
    private const long Slot = 512L << 30;
    private const long LargePage = 2 << 20;
    private const int ReadWrite = NativeMethods.ProtectionRead | NativeMethods.ProtectionWrite;
    private const int Anonymous = NativeMethods.MapPrivate | NativeMethods.MapAnonymous | NativeMethods.MapNoReserve;

    private static readonly Lazy<string?> Reason = new(() =>
        OperatingSystem.IsLinux() && RuntimeInformation.ProcessArchitecture == Architecture.X64 && Call(Operation.Version) == Version
            ? null
            : "The privileged engine needs a process that was started by 'privy run', of a version that has it.");

    private readonly long _length;
    private readonly byte* _mapping;
    private readonly long _mapped;
    private readonly long _faultsBefore = Call(Operation.Faults);
    private readonly long _copiesBefore = Call(Operation.Copies);

    internal PrivilegedEngine(long length, bool populate)
    {
        _length = length;
        if (length > Slot)
            throw new InsufficientMemoryException($"A region of {length} bytes is too large for the privileged engine: {Slot} bytes are the most.");
        // Room to place it at a large page, and behind the end of a slot if it would reach over that.
        _mapped = length + LargePage;
        _mapping = NativeMethods.Map(_mapped, ReadWrite, Anonymous, -1, "a region");
        if (SlotOf(_mapping) != SlotOf(_mapping + _mapped - 1))
        {
            NativeMethods.Unmap(_mapping, _mapped);
            _mapped += length;
            _mapping = NativeMethods.Map(_mapped, ReadWrite, Anonymous, -1, "a region");
        }
        Memory = (byte*)(((long)_mapping + LargePage - 1) & ~(LargePage - 1));
        if (SlotOf(Memory) != SlotOf(Memory + length - 1))
            Memory = (byte*)SlotOf(Memory + length - 1);
        try
        {
            long result = Call(Operation.Register, (long)Memory, length);
            if (result != 0)
                throw new InsufficientMemoryException($"A region of {length} bytes cannot be registered: {NativeMethods.Error((int)-result)}.");
            if (populate)
                NativeMethods.Populate(Memory, length);
        }
        catch
        {
            NativeMethods.Unmap(_mapping, _mapped);
            throw;
        }
    }

    private enum Operation
    {
        Version = 0,
        Register = 1,
        Take = 2,
        Release = 3,
        Changed = 4,
        Copies = 5,
        Faults = 6,
        Held = 7,
    }

    /// <summary>Why there is no such engine here, or null.</summary>
    internal static string? WhyNot => Reason.Value;

    public SnapshotEngine Kind => SnapshotEngine.Privileged;

    public byte* Memory { get; }

    // Of the whole process since the region was made.
    public EngineCounters Counters => new(Call(Operation.Faults) - _faultsBefore, Call(Operation.Copies) - _copiesBefore, 0);

    public EngineSnapshot Take()
    {
        long index = Call(Operation.Take, (long)Memory, _length);
        if (index < 0)
        {
            throw new InsufficientMemoryException(-index == 11
                ? "There are too many snapshots: 63 at once are the most, marks and forked processes included. Dispose of some."
                : $"No snapshot can be had: {NativeMethods.Error((int)-index)}.");
        }
        return new PrivilegedSnapshot((int)index, (byte*)(ViewBase + index * Slot + ((long)Memory & (Slot - 1))));
    }

    // What has changed since is in the snapshot's page table, so that lives on.
    public byte* CloseView(EngineSnapshot snapshot)
    {
        snapshot.View = null;
        return null;
    }

    public void FreeView(byte* view)
    {
    }

    public void Remove(EngineSnapshot snapshot)
    {
        long result = Call(Operation.Release, ((PrivilegedSnapshot)snapshot).Index);
        if (result != 0)
            throw new InvalidOperationException($"A snapshot cannot be released: {NativeMethods.Error((int)-result)}.");
    }

    public void Changed(EngineSnapshot newer, EngineSnapshot older, Span<ulong> pages)
    {
        long result;
        fixed (ulong* words = pages)
            result = Call(Operation.Changed, ((PrivilegedSnapshot)older).Index, ((PrivilegedSnapshot)newer).Index, (long)Memory, _length, (long)words);
        if (result != 0)
            throw new InvalidOperationException($"The changed pages cannot be had: {NativeMethods.Error((int)-result)}.");
    }

    public void Touched(Span<ulong> pages) => PageSets.Fill(pages, 0, _length / SnapshotRegion.PageSize);

    public void Close() => NativeMethods.Unmap(_mapping, _mapped);

    private static long Call(Operation operation, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) =>
        ResidentCode.Call(PrivateCall, (long)operation, a, b, c, d, e);

    private static long SlotOf(byte* address) => (long)address & ~(Slot - 1);

    private sealed class PrivilegedSnapshot : EngineSnapshot
    {
        internal PrivilegedSnapshot(int index, byte* view)
        {
            Index = index;
            View = view;
        }

        internal int Index { get; }

        internal override bool Lost => false;

        internal override long CopyBytes => Math.Max(0, Call(Operation.Held, Index)) * SnapshotRegion.PageSize;
    }
}
