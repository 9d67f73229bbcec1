namespace Privy.Kernel.Tests.Simulation;

/// <summary>Checks the kernel's data structures against each other.</summary>
internal static unsafe class Invariants
{
    public static void Verify(World world)
    {
        Machine machine = world.Machine;
        KernelState* k = machine.K;
        var frames = new Dictionary<ulong, (int Space, bool Private)>();
        for (int i = 1; i < Layout.MaxSpaces; i++)
        {
            Space* space = k->Spaces + i;
            bool active = world.Snapshots.ContainsKey(i);
            Machine.Check(active == (space->Active == Space.InUse), $"space {i}: active");
            Machine.Check(active == ((k->ActiveMask >> i & 1) != 0), $"space {i}: mask");
            Frames(k, space->PrivateFrames, space->PrivateTail, space->PrivateCount, f => frames.TryAdd(f, (i, true)));
            Frames(k, space->Limbo, space->LimboTail, space->LimboCount, f => frames.TryAdd(f, (i, false)));
            ulong previous = 0;
            for (ulong f = space->PrivateFrames; f != 0; f = FramePool.Info(k, f)->Next)
            {
                Machine.Check(FramePool.Info(k, f)->Previous == previous, "link back");
                previous = f;
            }
        }
        ulong used = (ulong)frames.Count;
        Frames(k, k->FreeFrames, 0, k->FreeFrameCount, f => frames.TryAdd(f, (-1, false)));
        if (k->ZeroFrame != 0)
        {
            Machine.Check(frames.TryAdd(k->ZeroFrame, (-2, false)), "zero frame on a list");
            Machine.Check(*machine.Word(k->ZeroFrame) == 0 && *machine.Word(k->ZeroFrame + 4088) == 0, "zero frame written");
        }
        Machine.Check((ulong)frames.Count == (k->PoolNext - k->PoolStart) >> 12, "frames lost");
        Machine.Check(used == k->FramesInUse, $"frames in use: {used}, counted {k->FramesInUse}");

        Tables(world, machine, k);
        Tree(world, machine, world.Main, (page, entry, large) => MainEntry(world, k, page, entry, large));
        foreach (SpaceModel snapshot in world.Snapshots.Values)
            Tree(world, machine, snapshot, (page, entry, _) => SnapshotEntry(k, snapshot, page, entry, frames));
        Views(world, machine, k);
    }

    /// <summary>Main's top-level table leads to the views' tables, and otherwise to none but main's own.</summary>
    private static void Views(World world, Machine machine, KernelState* k)
    {
        const int first = (int)(Layout.ViewBase >> 39);
        ulong* root = machine.Table(k->Spaces->Root);
        for (int i = 0; i < Layout.MaxSpaces; i++)
        {
            bool view = world.Snapshots.TryGetValue(i, out SpaceModel? model) && model.IsView;
            Machine.Check(view == ((k->ViewMask >> i & 1) != 0), $"view {i}: mask");
            ulong shown = view ? machine.Table(k->Spaces[i].Root)[k->Spaces[i].ViewOf >> 39] & Entry.AddressMask : 0;
            Machine.Check((root[first + i] & Entry.AddressMask) == shown, $"view {i}: entry");
        }
        var own = new HashSet<ulong>();
        Kept(k, own);
        Chain(k, k->Spaces->Tables.First, k->Spaces->Tables.Count, own);
        Chain(k, k->Spaces->Renewed.First, k->Spaces->Renewed.Count, own);
        ForEachTable(machine, k, 0, first, table => Machine.Check(own.Contains(table), "table of main is on another chain"));
    }

    private static void Frames(KernelState* k, ulong first, ulong tail, ulong count, Func<ulong, bool> add)
    {
        ulong last = 0;
        for (ulong f = first; f != 0; f = FramePool.Info(k, f)->Next)
        {
            Machine.Check(f >= k->PoolStart && f < k->PoolNext, $"frame {f:x} on a list");
            Machine.Check(add(f), $"frame {f:x} is on two lists");
            last = f;
            count--;
        }
        Machine.Check(count == 0, "frame count of a list");
        Machine.Check(tail == 0 || first == 0 || tail == last, "tail of a list");
    }

    private static void Tables(World world, Machine machine, KernelState* k)
    {
        var tables = new HashSet<ulong>();
        ulong used = k->ReadyRootCount + k->RetiredCount + k->DirectTableCount + k->KeptTableCount;
        Kept(k, tables);
        Machine.Check((ulong)tables.Count == k->KeptTableCount, "kept tables");
        Chain(k, k->CleanTables, k->CleanTableCount, tables);
        for (int i = 0; i < Layout.MaxSpaces; i++)
        {
            Space* space = k->Spaces + i;
            Chain(k, space->Tables.First, space->Tables.Count, tables);
            Chain(k, space->Renewed.First, space->Renewed.Count, tables);
            Chain(k, space->Leaves.First, space->Leaves.Count, tables);
            used += space->Tables.Count + space->Renewed.Count + space->Leaves.Count;
            if (space->Active != Space.InUse)
                continue;
            for (int e = 0; e < 512; e++)
            {
                // A may differ: hardware sets it in the root that is loaded.
                ulong difference = machine.Table(space->Root)[e] ^ machine.Table(space->AliasRoot)[e];
                Machine.Check((difference & ~Entry.Accessed) == 0, "alias root differs");
            }
        }
        Chain(k, k->RetiredTables, k->RetiredCount, tables);
        Chain(k, k->ReadyRoots, k->ReadyRootCount, tables);
        Chain(k, k->FreeTables, ulong.MaxValue, tables);
        Chain(k, k->FreeLeaves, ulong.MaxValue, tables);
        ulong given = (k->TableNext - k->TableStart) >> 12;
        Machine.Check((ulong)tables.Count + k->DirectTableCount + Machine.HostTables == given, "tables lost");
        Machine.Check(used == k->TablesInUse, $"tables in use: {used}, counted {k->TablesInUse}");
        foreach (SpaceModel space in world.Snapshots.Values.Prepend(world.Main))
            TreeTables(machine, k, space.Index, tables);
    }

    private static void Kept(KernelState* k, HashSet<ulong> tables)
    {
        for (int i = 0; i <= KernelState.KeptTableMask; i++)
        {
            if (k->KeptTables[i].Table != 0)
                Machine.Check(tables.Add(k->KeptTables[i].Table), "a kept table is kept twice");
        }
    }

    // Every table of a tree is on a chain (whose it is, the count and the absence of duplicates tell).
    private static void TreeTables(Machine machine, KernelState* k, int index, HashSet<ulong> tables)
    {
        ForEachTable(machine, k, index, 512, table => Machine.Check(tables.Contains(table), "a tree holds a table that is on no list"));
    }

    private static void Chain(KernelState* k, ulong first, ulong count, HashSet<ulong> tables)
    {
        ulong n = 0;
        for (ulong t = first; t != 0; n++)
        {
            Machine.Check(tables.Add(t), $"table {t:x} is on two lists");
            t = Privy.Kernel.Tables.Next(k, t);
        }
        Machine.Check(count == ulong.MaxValue || n == count, "table count of a list");
    }

    private static void ForEachTable(Machine machine, KernelState* k, int index, int rootEntries, Action<ulong> action)
    {
        ulong* root = machine.Table(k->Spaces[index].Root);
        for (int i = 0; i < rootEntries; i++)
        {
            if (root[i] == 0 || machine.Table(k->TemplateRoot)[i] != 0)
                continue;
            action(root[i] & Entry.AddressMask);
            ulong* pointers = machine.Table(root[i]);
            for (int j = 0; j < 512; j++)
            {
                if (pointers[j] == 0)
                    continue;
                action(pointers[j] & Entry.AddressMask);
                ulong* directory = machine.Table(pointers[j]);
                for (int l = 0; l < 512; l++)
                {
                    if (directory[l] != 0 && (directory[l] & Entry.Large) == 0)
                        action(directory[l] & Entry.AddressMask);
                }
            }
        }
    }

    private static void Tree(World world, Machine machine, SpaceModel space, Action<int, ulong, bool> visit)
    {
        KernelState* k = machine.K;
        for (int page = 0; page < space.Pages.Length; page++)
        {
            ulong address = World.AddressOf(page);
            ulong* directory = Walk.Directory(k, k->Spaces + space.Index, address);
            if (directory == null || *directory == 0)
                continue;
            bool large = (*directory & Entry.Large) != 0;
            ulong entry = large
                ? (*directory & ~Entry.Large) + ((ulong)(address >> 12 & 511) << 12)
                : machine.Table(*directory)[address >> 12 & 511];
            if (entry == 0)
                continue;
            Machine.Check(space.Pages[page].Mapped, $"space {space.Index}: entry of page {page}, which is not mapped");
            Rights(space, page, entry);
            if ((entry & Entry.Explicit) == 0)
            {
                ulong physical = entry & Entry.AddressMask;
                Machine.Check(physical == LinearMap.Physical(k, address), $"space {space.Index} page {page}: not linear");
                Machine.Check(machine.HasSlot(physical), $"space {space.Index} page {page}: no slot");
            }
            visit(page, entry, large);
        }
    }

    private static void Rights(SpaceModel space, int page, ulong entry)
    {
        bool present = (entry & Entry.Present) != 0;
        Machine.Check(!present || space.Expected(page, Access.Read) == 0, "entry grants reading");
        Machine.Check((entry & Entry.Writable) == 0 || space.Expected(page, Access.Write) == 0, "entry grants writing");
        Machine.Check((entry & Entry.NoExecute) != 0 || space.Expected(page, Access.Fetch) == 0, "entry grants execution");
    }

    private static void MainEntry(World world, KernelState* k, int page, ulong entry, bool large)
    {
        Machine.Check((entry & (Entry.Explicit | Entry.Private)) == 0, "explicit entry in main");
        if ((entry & Entry.Writable) == 0)
            return;
        foreach (SpaceModel snapshot in world.Snapshots.Values)
        {
            PageModel model = snapshot.Pages[page];
            if (!model.Mapped || model.Is(Vma.Shared) || model.Is(Vma.Pooled))
                continue;
            ulong* other = Walk.Page(k, k->Spaces + snapshot.Index, World.AddressOf(page));
            Machine.Check(
                other != null && (*other & Entry.Explicit) != 0,
                $"main may write page {page} (large: {large}), which snapshot {snapshot.Index} still shares");
        }
    }

    private static void SnapshotEntry(
        KernelState* k, SpaceModel snapshot, int page, ulong entry, Dictionary<ulong, (int Space, bool Private)> frames)
    {
        PageModel model = snapshot.Pages[page];
        if ((entry & Entry.Explicit) == 0)
        {
            Machine.Check(!model.Is(Vma.Pooled), "linear entry of a pooled page");
            Machine.Check((entry & Entry.Writable) == 0 || model.Is(Vma.Shared), "snapshot may write main's page");
            return;
        }
        ulong frame = entry & Entry.AddressMask;
        Machine.Check(frames.TryGetValue(frame, out (int Space, bool Private) owner), "entry leads to no frame");
        if ((entry & Entry.Private) != 0)
        {
            Machine.Check(owner == (snapshot.Index, true), $"space {snapshot.Index} page {page}: frame is not its own");
            return;
        }
        Machine.Check((entry & Entry.Writable) == 0, "shared copy is writable");
        if (owner.Space == -2)
            return;
        Machine.Check(owner.Space > 0 && !owner.Private, $"space {snapshot.Index} page {page}: copy was freed");
        ulong epoch = k->Spaces[snapshot.Index].Epoch;
        Machine.Check(
            FramePool.Info(k, frame)->BeginEpoch <= epoch && epoch <= k->Spaces[owner.Space].Epoch,
            "copy is kept for other epochs");
    }
}
