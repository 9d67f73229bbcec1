using System.Runtime.InteropServices;
using Privy.Engines.Portable;
using Privy.Hypervisor.Processes;

namespace Privy.Engines.Privileged;

/// <summary>
/// Snapshots under <c>privy run</c>: the guest's kernel takes them like those of a fork, and shows them to the program at another place. The calls
/// are those of <see cref="ViewProtocol"/>.
/// </summary>
internal sealed unsafe class PrivilegedEngine : ISnapshotEngine
{
    private const long LargePage = 2 << 20;

    /// <summary>Regions of this size and more share no page directory with other memory, so that a snapshot leaves the tables of that alone.</summary>
    private const long Large = 64 << 20;
    private const int ReadWrite = NativeMethods.ProtectionRead | NativeMethods.ProtectionWrite;
    private const int Anonymous = NativeMethods.MapPrivate | NativeMethods.MapAnonymous | NativeMethods.MapNoReserve;

    private static readonly Lazy<string?> Reason = new(() =>
        OperatingSystem.IsLinux() && RuntimeInformation.ProcessArchitecture == Architecture.X64 && Call(ViewOperation.Version) == ViewProtocol.Version
            ? null
            : "The privileged engine needs a process that was started by 'privy run', of a version that has it.");

    private readonly long _length;
    private readonly byte* _mapping;
    private readonly long _mapped;
    private readonly long _faultsBefore = Call(ViewOperation.Faults);
    private readonly long _copiesBefore = Call(ViewOperation.Copies);

    internal PrivilegedEngine(long length, bool populate)
    {
        _length = length;
        if (length > ViewProtocol.Slot)
            throw new InsufficientMemoryException($"A region of {length} bytes is too large for the privileged engine: {ViewProtocol.Slot} bytes are the most.");
        // Room to place it at a unit, and behind the end of a slot if it would reach over that.
        long unit = length < Large ? LargePage : ViewProtocol.Unit;
        long room = (length + unit - 1) & ~(unit - 1);
        _mapped = room + unit;
        _mapping = NativeMethods.Map(_mapped, NativeMethods.ProtectionNone, Anonymous, -1, "a region");
        if (SlotOf(_mapping) != SlotOf(_mapping + _mapped - 1))
        {
            NativeMethods.Unmap(_mapping, _mapped);
            _mapped += room;
            _mapping = NativeMethods.Map(_mapped, NativeMethods.ProtectionNone, Anonymous, -1, "a region");
        }
        Memory = (byte*)(((long)_mapping + unit - 1) & ~(unit - 1));
        if (SlotOf(Memory) != SlotOf(Memory + length - 1))
            Memory = (byte*)SlotOf(Memory + length - 1);
        try
        {
            NativeMethods.Protect(Memory, length, ReadWrite);
            long result = Call(ViewOperation.Register, (long)Memory, length);
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

    /// <summary>Why there is no such engine here, or null.</summary>
    internal static string? WhyNot => Reason.Value;

    public SnapshotEngine Kind => SnapshotEngine.Privileged;

    public byte* Memory { get; }

    // Of the whole process since the region was made.
    public EngineCounters Counters => new(Call(ViewOperation.Faults) - _faultsBefore, Call(ViewOperation.Copies) - _copiesBefore, 0);

    public EngineSnapshot Take()
    {
        long view = Call(ViewOperation.Take, (long)Memory, _length);
        if (view < 0)
        {
            throw new InsufficientMemoryException(-view == 11
                ? "There are too many snapshots: 63 at once are the most, marks and forked processes included. Dispose of some."
                : $"No snapshot can be had: {NativeMethods.Error((int)-view)}.");
        }
        return new PrivilegedSnapshot(view);
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
        long result = Call(ViewOperation.Release, ((PrivilegedSnapshot)snapshot).Address);
        if (result != 0)
            throw new InvalidOperationException($"A snapshot cannot be released: {NativeMethods.Error((int)-result)}.");
    }

    public void Changed(EngineSnapshot newer, EngineSnapshot older, Span<ulong> pages)
    {
        long result;
        fixed (ulong* words = pages)
            result = Call(ViewOperation.Changed, ((PrivilegedSnapshot)older).Address, ((PrivilegedSnapshot)newer).Address, (long)Memory, _length, (long)words);
        if (result != 0)
            throw new InvalidOperationException($"The changed pages cannot be had: {NativeMethods.Error((int)-result)}.");
    }

    public void Touched(Span<ulong> pages) => PageSets.Fill(pages, 0, _length / SnapshotRegion.PageSize);

    public void Close() => NativeMethods.Unmap(_mapping, _mapped);

    private static long Call(ViewOperation operation, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) =>
        ResidentCode.Call(ViewProtocol.Number, (long)operation, a, b, c, d, e);

    private static long SlotOf(byte* address) => (long)address & ~(ViewProtocol.Slot - 1);

    private sealed class PrivilegedSnapshot : EngineSnapshot
    {
        internal PrivilegedSnapshot(long address)
        {
            Address = address;
            View = (byte*)address;
        }

        /// <summary>By which the snapshot is known, also when its view is closed.</summary>
        internal long Address { get; }

        internal override bool Lost => false;

        internal override long CopyBytes => Math.Max(0, Call(ViewOperation.Held, Address)) * SnapshotRegion.PageSize;
    }
}
