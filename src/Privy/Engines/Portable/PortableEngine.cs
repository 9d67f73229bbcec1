using System.Runtime.InteropServices;
using Privy.Resident;

namespace Privy.Engines.Portable;

/// <summary>
/// Snapshots in an ordinary process. The region is a shared mapping of a memory file, a view is a private mapping of the same file, and the kernel is told to
/// break their sharing, page by page, before the region's page is written to. All that is critical is in <see cref="ResidentCode"/>; why it
/// is correct is said in src/Privy.Resident/Resident.cs.
/// </summary>
internal sealed unsafe class PortableEngine : ISnapshotEngine
{
    private const long MemfdCreate = 319;
    private const long Ftruncate = 77;
    private const long Eventfd2 = 290;
    private const long Write = 1;
    private const long Lseek = 8;
    private const long SeekData = 3;
    private const long SeekHole = 4;
    private const long MemfdCloseOnExec = 1;
    private const long EventfdCloseOnExec = 0x80000;
    private const int EventBuffer = 4096;

    private const int ReadWrite = NativeMethods.ProtectionRead | NativeMethods.ProtectionWrite;

    private readonly RegionState* _state;
    private readonly long _length;
    private readonly long _setBytes;
    private readonly int _file = -1;
    private readonly nint _thread;

    internal PortableEngine(long length, bool populate)
    {
        _length = length;
        _setBytes = (length / SnapshotRegion.PageSize + 63) / 64 * 8;
        _state = (RegionState*)NativeMemory.AllocZeroed((nuint)sizeof(RegionState));
        _state->Faults = -1;
        _state->Stop = -1;
        try
        {
            _state->Syscall = ResidentCode.SystemCall;
            fixed (byte* name = "privy-region\0"u8)
                _file = Descriptor(ResidentCode.Call(MemfdCreate, (long)name, MemfdCloseOnExec), "memory file");
            long result = ResidentCode.Call(Ftruncate, _file, length);
            if (result != 0)
                throw new InsufficientMemoryException($"There is no room for a region of {length} bytes: {NativeMethods.Error((int)-result)}.");
            _state->Length = (ulong)length;
            _state->Memory = NativeMethods.Map(length, ReadWrite, NativeMethods.MapShared | NativeMethods.MapNoReserve, _file, "a region");
            // A child that a fork makes until it executes another program has no use for it, and fork need not copy its page tables.
            NativeMethods.Advise(_state->Memory, length, NativeMethods.AdviseDontFork);
            if (populate)
                NativeMethods.Populate(_state->Memory, length);
            _state->Written = (ulong*)Anonymous(_setBytes, "a set of pages");
            _state->Events = (byte*)NativeMemory.AlignedAlloc(EventBuffer, 64);
            _state->Poll = _state->Events + EventBuffer - 64;
            _state->Faults = Descriptor(Userfaultfd.Open(), "userfaultfd");
            _state->Stop = Descriptor(ResidentCode.Call(Eventfd2, 0, EventfdCloseOnExec), "eventfd");
            result = Userfaultfd.Register(_state->Faults, _state->Memory, length);
            if (result != 0)
                throw new InsufficientMemoryException($"A region of {length} bytes cannot be watched: {NativeMethods.Error((int)-result)}.");
            nint thread;
            int error = NativeMethods.CreateThread(&thread, null, ResidentCode.HandleFaults, _state);
            if (error != 0)
                throw new InsufficientMemoryException($"The thread that answers page faults cannot be started: {NativeMethods.Error(error)}.");
            _thread = thread;
        }
        catch
        {
            Free();
            throw;
        }
    }

    public SnapshotEngine Kind => SnapshotEngine.Portable;

    public byte* Memory => _state->Memory;

    public EngineCounters Counters =>
        new((long)Volatile.Read(ref _state->FaultCount), (long)Volatile.Read(ref _state->CopyCount), (long)Volatile.Read(ref _state->LostCount));

    public EngineSnapshot Take()
    {
        byte* view = null;
        byte* written = null;
        SnapshotNode* node = null;
        try
        {
            // Writable, for the handler makes the kernel copy a page by a write fault.
            view = NativeMethods.Map(_length, ReadWrite, NativeMethods.MapPrivate | NativeMethods.MapNoReserve, _file, "a view");
            NativeMethods.Advise(view, _length, NativeMethods.AdviseDontFork);
            written = Anonymous(_setBytes, "a set of pages");
            node = (SnapshotNode*)NativeMemory.AllocZeroed((nuint)sizeof(SnapshotNode));
            node->View = view;
            long result = ResidentCode.Take(_state, node, (ulong*)written);
            if (result != 0)
                throw new InsufficientMemoryException($"The region cannot be protected against writes: {NativeMethods.Error((int)-result)}.");
            return new PortableSnapshot(node);
        }
        catch
        {
            NativeMethods.Unmap(view, _length);
            NativeMethods.Unmap(written, _setBytes);
            NativeMemory.Free(node);
            throw;
        }
    }

    public byte* CloseView(EngineSnapshot snapshot)
    {
        ResidentCode.CloseView(_state, ((PortableSnapshot)snapshot).Node);
        byte* view = snapshot.View;
        snapshot.View = null;
        return view;
    }

    public void FreeView(byte* view) => NativeMethods.Unmap(view, _length);

    public void Remove(EngineSnapshot snapshot) => NativeMethods.Unmap(ResidentCode.Unlink(_state, ((PortableSnapshot)snapshot).Node), _setBytes);

    public void Changed(EngineSnapshot newer, EngineSnapshot older, Span<ulong> pages)
    {
        fixed (ulong* words = pages)
            ResidentCode.Changed(_state, ((PortableSnapshot)newer).Node, ((PortableSnapshot)older).Node, words);
    }

    public void Touched(Span<ulong> pages)
    {
        // The memory file says where it has pages.
        for (long at = 0; at < _length;)
        {
            long data = ResidentCode.Call(Lseek, _file, at, SeekData);
            if (data < 0)
                return;
            long hole = ResidentCode.Call(Lseek, _file, data, SeekHole);
            if (hole < 0)
                hole = _length;
            PageSets.Fill(pages, data / SnapshotRegion.PageSize, (hole + SnapshotRegion.PageSize - 1) / SnapshotRegion.PageSize);
            at = hole;
        }
    }

    public void Close()
    {
        long one = 1;
        _ = ResidentCode.Call(Write, _state->Stop, (long)&one, sizeof(long));
        _ = NativeMethods.JoinThread(_thread, null);
        Free();
    }

    private void Free()
    {
        if (_state->Faults >= 0)
            _ = ResidentCode.Call(Userfaultfd.Close, _state->Faults);
        if (_state->Stop >= 0)
            _ = ResidentCode.Call(Userfaultfd.Close, _state->Stop);
        NativeMethods.Unmap(_state->Memory, _length);
        if (_file >= 0)
            _ = ResidentCode.Call(Userfaultfd.Close, _file);
        NativeMethods.Unmap((byte*)_state->Written, _setBytes);
        NativeMemory.AlignedFree(_state->Events);
        NativeMemory.Free(_state);
    }

    private static byte* Anonymous(long length, string what) =>
        NativeMethods.Map(length, ReadWrite, NativeMethods.MapPrivate | NativeMethods.MapAnonymous | NativeMethods.MapNoReserve, -1, what);

    private static int Descriptor(long result, string what) =>
        result >= 0 ? (int)result : throw new InsufficientMemoryException($"No {what} can be had: {NativeMethods.Error((int)-result)}.");

    private sealed class PortableSnapshot : EngineSnapshot
    {
        internal PortableSnapshot(SnapshotNode* node)
        {
            Node = node;
            View = node->View;
        }

        // Freed last of all: a thread may still ask for what it says. By then the region has removed the snapshot from its books, and the chain.
        ~PortableSnapshot() => NativeMemory.Free(Node);

        internal SnapshotNode* Node { get; }

        internal override bool Lost => Volatile.Read(ref Node->Lost) != 0;

        internal override long CopyBytes => (long)Volatile.Read(ref Node->Copies) * SnapshotRegion.PageSize;
    }
}
