using System.Runtime.InteropServices;

namespace Privy.Kernel;

/// <summary>Tables chained through their metadata, so that they are freed at once.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct TableChain
{
    /// <summary>Guest-physical address of the first; 0: none.</summary>
    public ulong First;

    /// <summary>Guest-physical address of the last.</summary>
    public ulong Last;

    /// <summary>Number of tables.</summary>
    public ulong Count;
}

/// <summary>An address space: main or a snapshot.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct Space
{
    /// <summary>Value of <see cref="Active"/>: the space may be loaded.</summary>
    public const int InUse = 1;

    /// <summary>Value of <see cref="Active"/>: being released; reads nothing any more, not yet reusable.</summary>
    public const int Releasing = 2;

    /// <summary>Value of <see cref="Active"/>: a copy of another snapshot that is not complete yet.</summary>
    public const int Building = 3;

    /// <summary>1 (<see cref="InUse"/>) while in use, 0 when free; the other values are the kernel's, while it makes or drops the space.</summary>
    public int Active;

    /// <summary>Number of its vCPUs that are in the program, or on the way there; written by the host. None are when a snapshot is taken.</summary>
    public int Inside;

    /// <summary>Number of mappings in <see cref="Vmas"/>.</summary>
    public int VmaCount;

    /// <summary>The mappings, sorted by address, without overlaps. Changed by the host under <see cref="KernelState.Lock"/>.</summary>
    public Vma* Vmas;

    /// <summary>Guest-physical address of the top-level table.</summary>
    public ulong Root;

    /// <summary>A second top-level table with the same entries: loading it in place of <see cref="Root"/> flushes, also under shadow paging.</summary>
    public ulong AliasRoot;

    /// <summary>Snapshots: the epoch this space shows.</summary>
    public ulong Epoch;

    /// <summary>Tables of this space, but for those of <see cref="Renewed"/> and <see cref="Leaves"/>.</summary>
    public TableChain Tables;

    /// <summary>Snapshots: their page tables.</summary>
    public TableChain Leaves;

    /// <summary>
    /// Main: the tables that the snapshot of a view replaces, which are those of the two top levels and all below the gigabytes of
    /// <see cref="KernelState.RegionGigabytes"/>. The others go when a snapshot of all of main is taken.
    /// </summary>
    public TableChain Renewed;

    /// <summary>Frames only this snapshot reads and may write (chained).</summary>
    public ulong PrivateFrames;

    /// <summary>Last private frame of the chain.</summary>
    public ulong PrivateTail;

    /// <summary>Number of private frames.</summary>
    public ulong PrivateCount;

    /// <summary>Copied frames whose newest reader is this snapshot (chained).</summary>
    public ulong Limbo;

    /// <summary>Last limbo frame of the chain: the whole chain is freed by one splice when no other snapshot is left.</summary>
    public ulong LimboTail;

    /// <summary>Number of limbo frames.</summary>
    public ulong LimboCount;

    /// <summary>Copies of 2 MB whose newest reader is this snapshot (chained).</summary>
    public ulong Blocks;

    /// <summary>Number of them.</summary>
    public ulong BlockCount;

    /// <summary>Where main sees this snapshot (<see cref="Layout.ViewBase"/>); 0: nowhere.</summary>
    public ulong View;

    /// <summary>Start of the 512 GB of main that the view shows a part of.</summary>
    public ulong ViewOf;

    /// <summary>Snapshots: how often one of its vCPUs had to be kicked so that main could write.</summary>
    public ulong Shootdowns;

    /// <summary>Snapshots: 1 when what they read is copied. The host then has the entries dropped that are there already.</summary>
    public int CopyReads;

    /// <summary>Bit set of the vCPUs that run in this space; written by the host under the lock.</summary>
    public fixed ulong Vcpus[Layout.MaxVcpus / 64];
}

/// <summary>All of the kernel's state; at the start of the kernel region.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct KernelState
{
    /// <summary>Spin lock over tables, frames, spaces and mappings; taken by the kernel and by the host. 0 = free.</summary>
    public int Lock;

    /// <summary>What shootdowns leave out (test switch: the property tests must then fail); 0: nothing.</summary>
    public int SkipShootdown;

    /// <summary>Kernel region: virtual address (host = guest).</summary>
    public ulong KernelBase;

    /// <summary>Kernel region: guest-physical address.</summary>
    public ulong KernelPhysical;

    /// <summary>Direct map: virtual address of guest-physical 0.</summary>
    public ulong DirectBase;

    /// <summary>Guest-physical end of the direct map.</summary>
    public ulong PhysicalEnd;

    /// <summary>Window: first virtual address.</summary>
    public ulong WindowBase;

    /// <summary>Window: one past the last virtual address.</summary>
    public ulong WindowEnd;

    /// <summary>Window: guest-physical address of its first byte.</summary>
    public ulong WindowPhysical;

    /// <summary>Low window end (guest virtual = guest physical below it); 0: none.</summary>
    public ulong LowEnd;

    /// <summary>Frame pool: first guest-physical address.</summary>
    public ulong PoolStart;

    /// <summary>Frame pool: one past the last guest-physical address.</summary>
    public ulong PoolEnd;

    /// <summary>Frame pool: frames below this were handed out at least once.</summary>
    public ulong PoolNext;

    /// <summary>
    /// Frame pool: frames below this need no memory of the host any more; written by the host. Copies ahead of main's writes take
    /// no others, so that they never wait for the host.
    /// </summary>
    public ulong PoolReady;

    /// <summary>Free frames (chained through the metadata).</summary>
    public ulong FreeFrames;

    /// <summary>Number of free frames in the chain.</summary>
    public ulong FreeFrameCount;

    /// <summary>Frames in use now.</summary>
    public ulong FramesInUse;

    /// <summary>Most frames in use at any time.</summary>
    public ulong FramesPeak;

    /// <summary>Metadata of pool frames: one <see cref="FrameInfo"/> each.</summary>
    public FrameInfo* Frames;

    /// <summary>Table frames: virtual start, next never used, and end.</summary>
    public ulong TableStart;

    /// <summary>Table frames below this were handed out at least once.</summary>
    public ulong TableNext;

    /// <summary>One past the last table frame.</summary>
    public ulong TableEnd;

    /// <summary>Free tables (chained).</summary>
    public ulong FreeTables;

    /// <summary>
    /// Free page tables of snapshots (chained), the last freed first: they become page tables again. Under shadow paging KVM's shadow of one then stays what it was, with
    /// other entries. A new one each time leaves a shadow behind that maps the same memory, some ten thousand entries a snapshot (measured with a BGSAVE of
    /// 64 MB), through which KVM walks for each page that it looks at for the host; and when its limit is reached, it drops them while the program waits.
    /// </summary>
    public ulong FreeLeaves;

    /// <summary>Tables of main's former trees: reusable once the vCPU that allocates runs on main's present root.</summary>
    public ulong RetiredTables;

    /// <summary>Last of the retired tables.</summary>
    public ulong RetiredTail;

    /// <summary>Tables in use now.</summary>
    public ulong TablesInUse;

    /// <summary>Last of the free tables; 0 when there is none.</summary>
    public ulong FreeTablesTail;

    /// <summary>
    /// Metadata of table frames: link to the next table in its chain, one word each; the bits outside of <see cref="TableLinkMask"/> count
    /// faults.
    /// </summary>
    public ulong* TableLinks;

    /// <summary>Guest-physical top-level table with the kernel half only; its entries are copied into every new root.</summary>
    public ulong TemplateRoot;

    /// <summary>The current epoch: a mapping made now has it as its birth, the next snapshot has it as its epoch.</summary>
    public ulong Epoch;

    /// <summary>Snapshots taken so far.</summary>
    public ulong SnapshotsTaken;

    /// <summary>Bit g: the memory slot of guest-physical gigabyte g exists; written by the host. Points into the kernel region.</summary>
    public ulong* SlotBitmap;

    /// <summary>
    /// Bit g: guest-physical gigabyte g has, or had, memory that the program takes snapshots of for itself (<see cref="Vma.Region"/>). Set by the
    /// host under the lock, never cleared: it says on which chain main's tables there are. Points into the kernel region.
    /// </summary>
    public ulong* RegionGigabytes;

    /// <summary>Virtual address of vCPU area 0.</summary>
    public ulong VcpuAreas;

    /// <summary>1 where the bases of FS and GS can be read in ring 3 (RDFSBASE).</summary>
    public int SegmentBases;

    /// <summary>Main's vCPU that froze the world, counters for diagnosis.</summary>
    public ulong Shootdowns;

    /// <summary>Entries whose Accessed bit spared a shootdown.</summary>
    public ulong ShootdownsSpared;

    /// <summary>The address spaces: <see cref="Layout.MaxSpaces"/> of them, 0 is main.</summary>
    public Space* Spaces;

    /// <summary>
    /// Guest-physical address of the direct map's page-directory-pointer tables, contiguous, so that entry g is gigabyte g;
    /// 0: all physical memory is reachable through the direct map already (unit tests).
    /// </summary>
    public ulong DirectTables;

    /// <summary>Page directories the kernel made for the direct map (never freed).</summary>
    public ulong DirectTableCount;

    /// <summary>Bit i: space i is a snapshot in use.</summary>
    public ulong ActiveMask;

    /// <summary>Newest epoch of the snapshots in use; meaningless when there is none.</summary>
    public ulong NewestEpoch;

    /// <summary>The shared frame of zeros for detached pages nobody ever wrote; 0 until needed, then kept. Not counted in <see cref="FramesInUse"/>.</summary>
    public ulong ZeroFrame;

    /// <summary>Number of retired tables.</summary>
    public ulong RetiredCount;

    /// <summary>Top-level tables that carry the kernel half already, for the next snapshot (chained).</summary>
    public ulong ReadyRoots;

    /// <summary>Number of ready roots.</summary>
    public ulong ReadyRootCount;

    /// <summary>
    /// Bytes of table frames that are handed out for the first time before free ones are used again. Under shadow paging KVM keeps
    /// its shadow of a former directory, and stores into it cost exits until the shadow is dropped: some 80 us more a fork, measured. The more of them are left behind, the more
    /// KVM has to walk through where it changes a page table that they all led to.
    /// </summary>
    public const ulong TableRotation = 4096 * Layout.PageSize;

    /// <summary>Value of <see cref="SkipShootdown"/>: everything.</summary>
    public const int AllShootdowns = 1;

    /// <summary>Value of <see cref="SkipShootdown"/>: the flush of the vCPU that writes, for the views that it reads itself.</summary>
    public const int OwnFlushes = 2;

    /// <summary>Bit i: main sees space i (<see cref="Space.View"/>).</summary>
    public ulong ViewMask;

    /// <summary>The address in a word of <see cref="TableLinks"/>.</summary>
    public const ulong TableLinkMask = ~(Layout.PageSize - 1);

    /// <summary>Most entries of <see cref="EarlyPages"/>: 1 MB of copies at a snapshot.</summary>
    public const int EarlyCapacity = 256;

    /// <summary>
    /// One more than the index of the vCPU that took the last snapshot of main, while its writes are recorded as early ones;
    /// 0: no more. The host ends it when the program has gone on for a few system calls.
    /// </summary>
    public int EarlyVcpu;

    /// <summary>Number of early pages.</summary>
    public int EarlyCount;

    /// <summary>Addresses of pages that main wrote right after a snapshot.</summary>
    public fixed ulong EarlyPages[EarlyCapacity];

    /// <summary>Most entries of <see cref="EarlyTouches"/>.</summary>
    public const int EarlyTouchCapacity = 64;

    /// <summary>Number of early touches.</summary>
    public int EarlyTouchCount;

    /// <summary>Addresses that main read right after a snapshot; bit 0 is set where it executed.</summary>
    public fixed ulong EarlyTouches[EarlyTouchCapacity];

    /// <summary>Pages are copied ahead of main's writes while fewer frames than this are in use; 0: never. Written by the host.</summary>
    public ulong AheadLimit;

    /// <summary>Most pages that one fault copies ahead. Written by the host.</summary>
    public int AheadMost;

    /// <summary>How many more pages each fault under a page table copies ahead than the one before. Written by the host.</summary>
    public int AheadGrowth;

    /// <summary>Pages that one fault copies ahead, at least, where the vCPU's faults are dense, until there were many since the last snapshot (then <see cref="AheadMost"/>). Written by the host.</summary>
    public int AheadDense;

    /// <summary>Faults of a vCPU within <see cref="RateWindow"/> that count as dense; 0: none do. Written by the host.</summary>
    public int RateDense;

    /// <summary>Cycles of the timestamp counter. Written by the host.</summary>
    public ulong RateWindow;

    /// <summary>Shootdowns of a snapshot after which what it reads is copied; 0: never. Written by the host.</summary>
    public ulong CopyReadsAfter;

    /// <summary>
    /// Faults of main under a page table of a region, older ones counted for less, after which who reads a view there copies the 2 MB at once. Written by the host.
    /// </summary>
    public int FaultsToCopy;

    /// <summary>Pages copied because a snapshot read there.</summary>
    public ulong CopiedForReaders;

    /// <summary>How often 2 MB were copied because a view was read there; their pages are among <see cref="CopiedForReaders"/>.</summary>
    public ulong BlocksCopied;

    /// <summary>Pages copied for snapshots before main wrote there.</summary>
    public ulong CopiedAhead;

    /// <summary>2 MB entries that main got back while snapshots were in use.</summary>
    public ulong Collapsed;

    /// <summary>Pages of one array of <see cref="RegionWrites"/>: 8 MB that are written to between two snapshots.</summary>
    public const int RegionWriteCapacity = 2048;

    /// <summary>
    /// Two arrays: the pages of regions copied since the last snapshot, and those that were copied before it. Points into the kernel region; null: none are
    /// copied ahead.
    /// </summary>
    public RegionWrite* RegionWrites;

    /// <summary>Which array of <see cref="RegionWrites"/> is that of the pages copied since the last snapshot.</summary>
    public int RegionWriteArray;

    /// <summary>Number of them.</summary>
    public int RegionWriteCount;

    /// <summary>Entries of the other array for which it is still to be found out whether main has written there.</summary>
    public int RegionWritesUnsettled;

    /// <summary>Entries of the other array whose pages main wrote before the last snapshot: it will again, as likely as not.</summary>
    public int Predictions;

    /// <summary>The first of them that has not been copied ahead.</summary>
    public int NextPrediction;

    /// <summary>How many a fault copies: the more, the better they were.</summary>
    public int PredictionsAtOnce;

    /// <summary>One more than the index of the vCPU that goes on copying predicted pages when the lock has been free; 0: none.</summary>
    public int PredictingVcpu;

    /// <summary>Room for <see cref="KeptTables"/>.</summary>
    public const int KeptTableCapacity = 4096;

    /// <summary>Number of <see cref="KeptTables"/> less one; a power of two less one. Written by the host.</summary>
    public ulong KeptTableMask;

    /// <summary>The epoch that began when all of main's tree was renewed for the last time: views renew the regions' part alone.</summary>
    public ulong MainEpoch;

    /// <summary>Page tables of main for 2 MB each, by address. Points into the kernel region; null: none are kept.</summary>
    public KeptTable* KeptTables;

    /// <summary>Number of tables in it.</summary>
    public ulong KeptTableCount;

    /// <summary>Most tables in <see cref="CleanTables"/>.</summary>
    public const ulong CleanTablesMost = 8192;

    /// <summary>Free tables of views that nobody has read (chained): KVM has no shadows of them under shadow paging. The next views get them.</summary>
    public ulong CleanTables;

    /// <summary>Number of them.</summary>
    public ulong CleanTableCount;

    /// <summary>Pages of regions that were copied ahead and then not written, so that views got their computed entries back.</summary>
    public ulong CopiesUndone;

    /// <summary>Free blocks of 2 MB of frames (chained).</summary>
    public ulong FreeBlocks;

    /// <summary>Most entries of <see cref="ViewAreas"/>.</summary>
    public const int ViewAreaCapacity = 64;

    /// <summary>Number of areas in it.</summary>
    public int ViewAreaCount;

    /// <summary>
    /// 2 MB of views that have been read by 4 KB entries of main's memory since the last shootdown, or the latest of them: address in main, and in the lowest bits the space's index.
    /// </summary>
    public fixed ulong ViewAreas[ViewAreaCapacity];

    /// <summary>The kernel's own, under the lock: the snapshots' page tables of the 2 MB in hand.</summary>
    public fixed ulong AroundTables[Layout.MaxSpaces];

    /// <summary>The kernel's own, under the lock: the snapshots' mappings of the pages in hand.</summary>
    public fixed ulong AroundVmas[Layout.MaxSpaces];
}

/// <summary>Metadata of one pool frame.</summary>
[StructLayout(LayoutKind.Explicit, Size = 16)]
public struct FrameInfo
{
    /// <summary>In <see cref="BeginEpoch"/>: main has not written to the page since the copy was made (<see cref="Entry.Early"/>).</summary>
    public const ulong Unwritten = 1UL << 63;

    /// <summary>In <see cref="BeginEpoch"/>: the frame is one of 2 MB that live together; the epoch is that of the first.</summary>
    public const ulong InBlock = 1UL << 62;

    /// <summary>The epoch in <see cref="BeginEpoch"/>.</summary>
    public const ulong EpochMask = ~(Unwritten | InBlock);

    /// <summary>Guest-physical address of the next frame in the chain it is on; 0: last.</summary>
    [FieldOffset(0)]
    public ulong Next;

    /// <summary>Limbo frames: oldest epoch that may read the copy, <see cref="Unwritten"/> and <see cref="InBlock"/>.</summary>
    [FieldOffset(8)]
    public ulong BeginEpoch;

    /// <summary>Private frames: guest-physical address of the previous frame in the chain; 0: first.</summary>
    [FieldOffset(8)]
    public ulong Previous;
}
