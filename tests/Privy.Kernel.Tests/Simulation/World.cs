using System.Globalization;

namespace Privy.Kernel.Tests.Simulation;

/// <summary>
/// A program, its snapshots and the host around the kernel, with a model of what everyone must read. All random
/// choices come from one seed.
/// </summary>
internal sealed unsafe class World : IDisposable
{
    private const int MaxSnapshots = 6;
    private const ulong Poison = 0xDEAD_DEAD_DEAD_DEAD;

    // Two gigabytes meet in the middle of the first arena; the second lies in the low window, 2 MB for 2 MB where the first one's have the same place in KeptTables.
    private static readonly (ulong Start, int Pages)[] Arenas =
    [
        (Machine.WindowBase + Layout.Gigabyte - (2 * Layout.LargePageSize), 4 * 512),
        (Layout.Gigabyte - (2 * Layout.LargePageSize), 2 * 512),
    ];

    private const int PageCount = 6 * 512;

    /// <summary>Pages of each 2 MB that are touched again and again, so that the same page meets all operations.</summary>
    public static readonly ulong[] HotPages = [0, 1, 2, 3, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111];

    private readonly Random _random;
    private readonly Dictionary<int, SpaceModel> _snapshots = [];
    private readonly SpaceModel _main = new(0, PageCount);
    private readonly Queue<FormattableString> _log = [];
    private readonly Vcpu[] _mainVcpus;
    private readonly byte* _populated;
    private ulong _token = 1;
    private readonly bool _viewsOnly;
    private readonly bool _withViews;

    // Few views of much memory, and memory for copies: what is read in 2 MB that main writes to is copied.
    private readonly bool _largeViews;
    private readonly int _mostSnapshots = MaxSnapshots;
    private bool _nested;
    private bool _sharedBusy;
    private int _busySpace = -1;
    private int _stoppedSpace = -1;
    private (int Space, int Start, int End) _changing = (-1, 0, 0);

    public World(int seed, int mainVcpus, bool generous, KernelCode? code = null, bool viewsOnly = false)
    {
        _viewsOnly = viewsOnly;
        _withViews = viewsOnly || seed % 4 != 0;
        _largeViews = viewsOnly && generous && seed % 2 == 0;
        if (_largeViews)
            _mostSnapshots = 1 + (seed / 6 % 3);
        _random = new Random(seed);
        Machine = new Machine(generous, code) { Random = _random, Meanwhile = Meanwhile, Kicked = Kicked };
        if (_random.Next(3) != 0)
        {
            K->AheadLimit = (ulong)_random.Next(1, 3000);
            K->AheadMost = 1 << _random.Next(10);
            K->AheadGrowth = 1 << _random.Next(10);
            K->AheadDense = 1 << _random.Next(10);
            K->RateDense = 1 << _random.Next(10);
            K->RateWindow = ulong.MaxValue / 4;
            K->PredictionsAtOnce = 1 << _random.Next(5);
            K->PoolReady = ulong.MaxValue;
            if (_random.Next(4) != 0)
            {
                K->CopyReadsAfter = (ulong)_random.Next(1, 3);
                K->PoolReady = K->PoolStart + (ulong)_random.Next(3000) * Layout.PageSize;
            }
        }
        if (_largeViews)
        {
            K->AheadLimit = 50_000;
            K->PoolReady = ulong.MaxValue;
        }
        _mainVcpus = Machine.Vcpus[..mainVcpus];
        foreach (Vcpu v in _mainVcpus)
        {
            v.Assign(0);
            Machine.K->Spaces->Vcpus[0] |= 1UL << v.Index;
        }
        _main.Vcpus.AddRange(_mainVcpus);
        _populated = (byte*)System.Runtime.InteropServices.NativeMemory.AllocZeroed(PageCount);
        if (_random.Next(4) != 0 || viewsOnly)
            MapMain(0, PageCount, Vma.Read | Vma.Write);
        if (_random.Next(2) != 0 || viewsOnly)
            AddRegion(0, Arenas[0].Pages);
    }

    public Machine Machine { get; }

    /// <summary>Views taken so far.</summary>
    public int Views { get; private set; }

    private KernelState* K => Machine.K;

    public IReadOnlyDictionary<int, SpaceModel> Snapshots => _snapshots;

    public SpaceModel Main => _main;

    public string Log => string.Join(Environment.NewLine, _log.Select(n => n.ToString(CultureInfo.InvariantCulture)));

    public static ulong AddressOf(int page)
    {
        int arena = page < Arenas[0].Pages ? 0 : 1;
        int first = arena == 0 ? 0 : Arenas[0].Pages;
        return Arenas[arena].Start + ((ulong)(page - first) << 12);
    }

    private ulong Linear(int page) => LinearMap.Physical(K, AddressOf(page));

    private void Note(FormattableString text)
    {
        if (_log.Count == 60)
            _log.Dequeue();
        _log.Enqueue(text);
    }

    private Vcpu AnyMain() => _mainVcpus[_random.Next(_mainVcpus.Length)];

    private Vcpu AnyOf(SpaceModel space) => space.Vcpus[_random.Next(space.Vcpus.Count)];

    private SpaceModel? AnyChild() => AnySnapshot(view: false);

    private SpaceModel? AnySnapshot(bool view)
    {
        List<SpaceModel> snapshots = [.. _snapshots.Values.Where(s => s.IsView == view)];
        return snapshots.Count == 0 ? null : snapshots[_random.Next(snapshots.Count)];
    }

    private SpaceModel AnySpace() => _random.Next(2) == 0 ? _main : AnySnapshot(_random.Next(2) == 0) ?? _main;

    /// <summary>A range inside one arena: mostly small, sometimes whole large pages.</summary>
    private (int Start, int End) Range()
    {
        int arena = _random.Next(3) == 0 ? 1 : 0;
        int first = arena == 0 ? 0 : Arenas[0].Pages;
        int pages = Arenas[arena].Pages;
        int length = _random.Next(4) switch
        {
            0 => _random.Next(1, 8),
            1 => _random.Next(1, 600),
            2 => 512 * _random.Next(1, 3),
            _ => _random.Next(1, 64),
        };
        int start = _random.Next(pages);
        if (length % 512 == 0)
            start = start / 512 * 512;
        return (first + start, first + Math.Min(start + length, pages));
    }

    private int AnyPage() => _random.Next(8) == 0 && !_viewsOnly
        ? _random.Next(PageCount)
        : _random.Next(_viewsOnly ? 2 : 6) * 512 + (int)HotPages[_random.Next(HotPages.Length)];

    public void Step()
    {
        if (_viewsOnly)
        {
            StepOfViews();
            return;
        }
        switch (_random.Next(100))
        {
            case < 6:
                MapMain();
                break;
            case < 8:
                UnmapMain();
                break;
            case < 10:
                DontNeedMain();
                break;
            case < 13:
                ProtectMain();
                break;
            case < 14:
                (int start, int end) = Range();
                AddRegion(start, end);
                break;
            case < 17:
                TakeView();
                break;
            case < 20:
                TakeSnapshot();
                break;
            case < 24:
                ReleaseAny();
                break;
            case < 25:
                CompareViews();
                break;
            case < 27:
                ChangeSnapshotMapping();
                break;
            case < 30:
                PrepareMain();
                break;
            case < 33:
                PrepareSnapshot();
                break;
            case < 38:
                ClearAccessed();
                break;
            case < 40:
                HostReads();
                break;
            case < 42:
                AnyOf(AnySpace()).Exit();
                break;
            case < 44:
                Precopy();
                break;
            case < 46:
                ForgetLinear();
                break;
            default:
                Touch();
                break;
        }
    }

    /// <summary>Main does nothing that makes all its vCPUs flush, or hardly ever: what they have cached of views grows old.</summary>
    private void StepOfViews()
    {
        switch (_random.Next(100))
        {
            case < 3:
                TakeView();
                break;
            case < 4:
                ReleaseAny();
                break;
            case < 5 when _largeViews:
                ReleaseAny();
                break;
            case < 6:
                PrepareMain();
                break;
            case < 8:
                CompareViews();
                break;
            case < 10:
                HostReads();
                break;
            case < 12:
                AnyMain().Exit();
                break;
            default:
                Touch();
                break;
        }
    }

    private void Touch()
    {
        // Bursts, so that translations get cached and used again.
        SpaceModel space = AnySpace();
        Vcpu v = AnyOf(space);
        int around = AnyPage();
        int count = _random.Next(1, 8);
        for (int i = 0; i < count; i++)
        {
            int page = _random.Next(3) == 0 ? AnyPage() : Math.Min(around + i, PageCount - 1);
            Touch(space, v, page, (Access)_random.Next(3));
        }
    }

    private void Touch(SpaceModel space, Vcpu v, int page, Access access)
    {
        if (IsChanging(space, page))
            return;
        int busy = _busySpace;
        _busySpace = v.Area->Space;
        int expected = space.Expected(page, access);
        int result = v.Touch(space.AddressOf(page), access, out ulong physical);
        _busySpace = busy;
        Note($"touch space {space.Index} vcpu {v.Index} page {page} {access} -> {result} at {physical:x}");
        if (result != expected)
            throw new SimulationException($"space {space.Index} page {page} {access}: {result}, expected {expected}");
        if (result == 0)
            Use(space, page, access, physical);
    }

    private void Use(SpaceModel space, int page, Access access, ulong physical)
    {
        Cell cell = space.Pages[page].Cell!;
        if (access == Access.Write)
        {
            ulong value = ++_token;
            CheckWords(space, page, physical, cell.Value);
            *Machine.Word(physical) = value;
            *Machine.Word(physical + 4088) = value;
            cell.Value = value;
            space.Pages[page].Version++;
            return;
        }
        CheckWords(space, page, physical, cell.Value);
    }

    private void CheckWords(SpaceModel space, int page, ulong physical, ulong expected)
    {
        ulong first = *Machine.Word(physical);
        ulong last = *Machine.Word(physical + 4088);
        if (first != expected || last != expected)
        {
            throw new SimulationException(
                $"space {space.Index} page {page} reads {first:x}/{last:x} at {physical:x}, expected {expected:x}");
        }
    }

    private void SetWords(int page, ulong value)
    {
        *Machine.Word(Linear(page)) = value;
        *Machine.Word(Linear(page) + 4088) = value;
    }

    private uint AnyRights() => _random.Next(8) switch
    {
        0 => 0,
        1 => Vma.Read,
        2 => Vma.Read | Vma.Execute,
        3 => Vma.Write,
        4 => Vma.Read | Vma.Write | Vma.Execute,
        _ => Vma.Read | Vma.Write,
    };

    private void MapMain()
    {
        (int start, int end) = Range();
        RemoveMain(start, end);
        MapMain(start, end, AnyRights() | (_random.Next(5) == 0 ? Vma.Shared : 0));
    }

    private void MapMain(int start, int end, uint flags)
    {
        Note($"map main {start}..{end} flags {flags}");
        for (int i = start; i < end; i++)
        {
            SetWords(i, 0);
            _main.Pages[i] = new PageModel { Cell = new Cell(0), Flags = flags, Birth = K->Epoch, Version = _main.Pages[i].Version + 1 };
        }
        WriteVmas(_main);
    }

    /// <summary>
    /// Between the change of the mappings and the kernel's call other vCPUs may fault: what lies outside the range must
    /// not notice.
    /// </summary>
    private void TouchOutside(SpaceModel space, int start, int end)
    {
        _changing = (space.Index, start, end);
        for (int n = _random.Next(6); n > 0; n--)
        {
            int page = _random.Next(2) == 0 ? AnyPage() : Math.Clamp((_random.Next(2) == 0 ? start : end) + _random.Next(-40, 40), 0, PageCount - 1);
            if (page < start || page >= end)
                Touch(space, AnyOf(space), page, (Access)_random.Next(3));
        }
    }

    /// <summary>Whether the host is in the middle of changing the page's mapping: a program that looks finds either.</summary>
    private bool IsChanging(SpaceModel space, int page) =>
        space.Index == _changing.Space && page >= _changing.Start && page < _changing.End;

    private void UnmapMain()
    {
        (int start, int end) = Range();
        Note($"unmap main {start}..{end}");
        RemoveMain(start, end);
    }

    private void RemoveMain(int start, int end)
    {
        DetachMain(start, end);
        for (int i = start; i < end; i++)
        {
            _main.Pages[i] = new PageModel { Version = _main.Pages[i].Version + 1 };
            SetWords(i, Poison);
        }
        WriteVmas(_main);
        TouchOutside(_main, start, end);
        Call(v => Machine.Code.Unmap(v, 0, AddressOf(start), AddressOf(start) + ((ulong)(end - start) << 12)));
        _changing.Space = -1;
        FlushMain();
    }

    private void DontNeedMain()
    {
        (int start, int end) = Range();
        Note($"dontneed main {start}..{end}");
        DetachMain(start, end);
        FlushMain();
        for (int i = start; i < end; i++)
        {
            if (!_main.Pages[i].Mapped)
                continue;
            SetWords(i, 0);
            _main.Pages[i].Cell = new Cell(0);
        }
    }

    private void DetachMain(int start, int end)
    {
        Note($"detach {start}..{end}");
        for (int i = start; i < end; i++)
        {
            Cell? cell = _main.Pages[i].Cell;
            _main.Pages[i].Version++;
            _populated[i - start] = (byte)(cell == null || cell.Value != 0 || _random.Next(2) == 0 ? 1 : 0);
        }
        _sharedBusy = true;
        Call(v => Machine.Code.Detach(v, AddressOf(start), AddressOf(start) + ((ulong)(end - start) << 12), _populated));
        _sharedBusy = false;
        foreach (SpaceModel snapshot in _snapshots.Values)
        {
            for (int i = start; i < end; i++)
            {
                ref PageModel page = ref snapshot.Pages[i];
                if (!page.Is(Vma.Shared) || page.Detached)
                    continue;
                page.Detached = true;
                page.Cell = new Cell(page.Cell!.Value);
            }
        }
    }

    private void ProtectMain()
    {
        (int start, int end) = Range();
        uint rights = AnyRights();
        Note($"protect main {start}..{end} {rights}");
        for (int i = start; i < end; i++)
            _main.Pages[i].Flags = (_main.Pages[i].Flags & (Vma.Shared | Vma.Region)) | rights;
        WriteVmas(_main);
        TouchOutside(_main, start, end);
        Call(v => Machine.Code.Protect(v, 0, AddressOf(start), AddressOf(start) + ((ulong)(end - start) << 12)));
        _changing.Space = -1;
        FlushMain();
    }

    private void FlushMain()
    {
        foreach (Vcpu v in _mainVcpus)
        {
            v.Exit();
            v.Area->FlushPending = 1;
        }
    }

    /// <summary>Rewrites a space's array of mappings from the model.</summary>
    private void WriteVmas(SpaceModel model)
    {
        Machine.Check(K->Lock == 0, "lock kept");
        K->Lock = 99;
        Space* space = K->Spaces + model.Index;
        space->VmaCount = 0;
        // By address: the low window comes first.
        AddVmas(model, space, Arenas[0].Pages, PageCount);
        AddVmas(model, space, 0, Arenas[0].Pages);
        K->Lock = 0;
    }

    private static void AddVmas(SpaceModel model, Space* space, int first, int end)
    {
        for (int i = first; i < end; i++)
        {
            ref PageModel page = ref model.Pages[i];
            if (!page.Mapped)
                continue;
            Vma* last = space->Vmas + space->VmaCount - 1;
            if (i > first && model.Pages[i - 1].Mapped && last->Flags == page.Flags && last->Birth == page.Birth)
            {
                last->End += Layout.PageSize;
                continue;
            }
            Machine.Check(space->VmaCount < Machine.MaxVmas, "too many mappings for the test");
            *(last + 1) = new Vma
            {
                Start = AddressOf(i),
                End = AddressOf(i) + Layout.PageSize,
                Flags = page.Flags,
                Birth = page.Birth,
            };
            space->VmaCount++;
        }
    }

    private delegate long KernelCall(VcpuArea* v);

    /// <summary>The host calls a kernel function on a vCPU of main, which is outside afterwards.</summary>
    private void Call(KernelCall call) => Machine.Check(CallOn(AnyMain(), call) == 0, "result of a call");

    private long CallOn(Vcpu v, KernelCall call)
    {
        int busy = _busySpace;
        _busySpace = v.Area->Space;
        v.Enter();
        long result = call(v.Area);
        v.Exit();
        _busySpace = busy;
        Machine.Check(K->Lock == 0, "lock kept");
        return result;
    }

    /// <summary>Main will take snapshots of a range: of as much of it as is memory of its own.</summary>
    private void AddRegion(int start, int end)
    {
        if (!_withViews)
            return;
        int last = start;
        while (last < end && _main.Pages[last].Mapped && !_main.Pages[last].Is(Vma.Shared))
            _main.Pages[last++].Flags |= Vma.Region;
        if (last == start)
            return;
        Note($"region {start}..{last}");
        WriteVmas(_main);
        for (int i = start; i < last; i++)
        {
            ulong gigabyte = Linear(i) >> 30;
            K->RegionGigabytes[gigabyte >> 6] |= 1UL << (int)(gigabyte & 63);
        }
    }

    private void TakeView()
    {
        (int start, int end) = _largeViews && _random.Next(4) != 0 ? (0, Arenas[0].Pages) : Range();
        while (start < end && !_main.Pages[start].Is(Vma.Region))
            start++;
        int last = start;
        while (last < end && _main.Pages[last].Is(Vma.Region))
            last++;
        // Not in all worlds: beside views main's pages are copied one by one, and large pages do not come back.
        if (last == start || _snapshots.Count >= _mostSnapshots || !_withViews)
            return;
        foreach (Vcpu v in _mainVcpus)
            v.Exit();
        ulong epoch = K->Epoch;
        _stoppedSpace = 0;
        long index = CallOn(AnyMain(), v => Machine.Code.TakeView(v, AddressOf(start), AddressOf(last - 1) + Layout.PageSize));
        _stoppedSpace = -1;
        Note($"view {index} of {start}..{last}, epoch {epoch}");
        Machine.Check(index > 0 && !_snapshots.ContainsKey((int)index), $"index of a view: {index}");
        Machine.Check(K->Epoch == epoch + 1, "epoch");
        _snapshots.Add((int)index, _main.View((int)index, start, last));
        Views++;
        // Sometimes at once, sometimes after main has gone on.
        if (_random.Next(2) == 0)
            CompareViews();
    }

    /// <summary>What main has written between two views, wherever both show it.</summary>
    private void CompareViews()
    {
        SpaceModel? older = AnySnapshot(view: true);
        SpaceModel? newer = AnySnapshot(view: true);
        if (older == null || newer == null || K->Spaces[older.Index].Epoch >= K->Spaces[newer.Index].Epoch)
            return;
        int start = 0;
        while (start < PageCount && !(older.Pages[start].Mapped && newer.Pages[start].Mapped))
            start++;
        int end = start;
        while (end < PageCount && older.Pages[end].Mapped && newer.Pages[end].Mapped)
            end++;
        // Both ranges lie in one arena.
        if (start == end)
            return;
        ulong[] bits = new ulong[PageCount / 64 + 1];
        long result;
        fixed (ulong* words = bits)
        {
            ulong* set = words;
            result = CallOn(AnyMain(), v => Machine.Code.Changed(
                v, (ulong)older.Index << 32 | (uint)newer.Index, AddressOf(start), AddressOf(end - 1) + Layout.PageSize, set));
        }
        Note($"compare {older.Index} and {newer.Index}, pages {start}..{end}");
        Machine.Check(result == 0, $"comparison: {result}");
        for (int i = start; i < end; i++)
        {
            bool changed = older.Pages[i].Version != newer.Pages[i].Version;
            bool found = (bits[(i - start) >> 6] >> (i - start & 63) & 1) != 0;
            // Zeros that main gave up twice are the same zeros.
            bool zeros = older.Pages[i].Cell!.Value == 0 && newer.Pages[i].Cell!.Value == 0;
            Machine.Check(found == changed || (zeros && !found), $"page {i}, between views {older.Index} and {newer.Index}: written {changed}, found {found}");
        }
    }

    private void TakeSnapshot()
    {
        if (_snapshots.Count >= MaxSnapshots || _viewsOnly)
            return;
        SpaceModel parent = _random.Next(3) == 0 ? AnyChild() ?? _main : _main;
        List<Vcpu> free = [.. Machine.Vcpus[2..].Where(v => !_snapshots.Values.Any(s => s.Vcpus.Contains(v)))];
        if (free.Count < 2)
            return;
        foreach (Vcpu v in parent.Vcpus)
            v.Exit();
        ulong epoch = K->Epoch;
        _stoppedSpace = parent.Index;
        long index = CallOn(AnyOf(parent), v => Machine.Code.CreateSnapshot(v, parent.Index));
        _stoppedSpace = -1;
        Note($"snapshot {index} of {parent.Index}, epoch {K->Spaces[index].Epoch}");
        Machine.Check(index > 0 && !_snapshots.ContainsKey((int)index), "index of a snapshot");
        Machine.Check(K->Epoch == epoch + (parent.Index == 0 ? 1u : 0), "epoch");
        SpaceModel child = parent.Fork((int)index);
        int count = _random.Next(1, 3);
        K->Spaces[index].Vcpus[0] = 0;
        foreach (Vcpu v in free[..count])
        {
            v.Assign((int)index);
            child.Vcpus.Add(v);
            K->Spaces[index].Vcpus[0] |= 1UL << v.Index;
        }
        _snapshots.Add((int)index, child);
    }

    private void ReleaseAny()
    {
        SpaceModel? space = AnySnapshot(_random.Next(2) == 0);
        if (space != null)
            Release(space);
    }

    public void Release(SpaceModel space)
    {
        Note($"release {space.Index}");
        if (space.IsView)
        {
            _snapshots.Remove(space.Index);
            Call(v => Machine.Code.CloseView(v, space.Index));
            return;
        }
        foreach (Vcpu v in space.Vcpus)
            v.Exit();
        _snapshots.Remove(space.Index);
        Call(v => Machine.Code.Release(v, space.Index));
    }

    private void ChangeSnapshotMapping()
    {
        SpaceModel? space = AnyChild();
        if (space == null)
            return;
        (int start, int end) = Range();
        ulong from = AddressOf(start);
        ulong to = from + ((ulong)(end - start) << 12);
        if (_random.Next(2) == 0)
        {
            uint rights = AnyRights();
            Note($"protect {space.Index} {start}..{end} {rights}");
            for (int i = start; i < end; i++)
                space.Pages[i].Flags = (space.Pages[i].Flags & (Vma.Shared | Vma.Pooled)) | rights;
            WriteVmas(space);
            TouchOutside(space, start, end);
            Machine.Check(CallOn(AnyOf(space), v => Machine.Code.Protect(v, space.Index, from, to)) == 0, "protect");
            _changing.Space = -1;
            return;
        }
        bool map = _random.Next(2) == 0;
        uint flags = AnyRights() | Vma.Pooled;
        Note($"{(map ? "map" : "unmap")} {space.Index} {start}..{end} {flags}");
        for (int i = start; i < end; i++)
        {
            space.Pages[i] = map
                ? new PageModel { Cell = new Cell(0), Flags = flags, Birth = K->Epoch }
                : default;
        }
        WriteVmas(space);
        TouchOutside(space, start, end);
        Machine.Check(CallOn(AnyOf(space), v => Machine.Code.Unmap(v, space.Index, from, to)) == 0, "unmap");
        _changing.Space = -1;
    }

    /// <summary>Rule 1: before the host kernel writes into main's memory.</summary>
    private void PrepareMain()
    {
        (int start, int end) = Range();
        int bad = FirstBad(_main, start, end);
        Note($"prepare main {start}..{end}, bad {bad}");
        Prepare(_main, start, end, bad);
        for (int i = start; i < bad; i++)
        {
            CheckWords(_main, i, Linear(i), _main.Pages[i].Cell!.Value);
            SetWords(i, _main.Pages[i].Cell!.Value = ++_token);
            _main.Pages[i].Version++;
        }
    }

    private void PrepareSnapshot()
    {
        SpaceModel? space = AnyChild();
        if (space == null)
            return;
        (int start, int end) = Range();
        int bad = FirstBad(space, start, end);
        Note($"prepare {space.Index} {start}..{end}, bad {bad}");
        Prepare(space, start, end, bad);
        for (int i = start; i < bad; i++)
        {
            PageKind kind = Translate.Lookup(K, K->Spaces + space.Index, AddressOf(i), out _, out ulong physical);
            bool shared = space.Pages[i].Is(Vma.Shared) && !space.Pages[i].Detached;
            Machine.Check(kind == (shared ? PageKind.Linear : PageKind.Private), $"prepared page {i} is {kind}");
            Use(space, i, Access.Write, physical);
        }
    }

    private static int FirstBad(SpaceModel space, int start, int end)
    {
        while (start < end && space.Expected(start, Access.Write) == 0)
            start++;
        return start;
    }

    private void Prepare(SpaceModel space, int start, int end, int bad)
    {
        Vcpu v = AnyOf(space);
        ulong offset = (ulong)_random.Next(4096);
        long result = CallOn(v, a => Machine.Code.PrepareWrite(
            a, space.Index, AddressOf(start) + offset, AddressOf(start) + ((ulong)(end - start) << 12)));
        Machine.Check(result == (bad < end ? -14 : 0), $"prepare returns {result}");
        if (bad < end)
            Machine.Check(v.Area->FaultAddress == AddressOf(bad) + (bad == start ? offset : 0), "address of the bad page");
    }

    private void Precopy()
    {
        (int start, int end) = Range();
        Note($"precopy {start}..{end}");
        long result = CallOn(AnyMain(), v => Machine.Code.Precopy(v, AddressOf(start), AddressOf(start) + ((ulong)(end - start) << 12)));
        Machine.Check(result is 0 or 1 or 2, $"precopy returns {result}");
    }

    private void ClearAccessed()
    {
        SpaceModel? space = AnyChild();
        if (space == null)
            return;
        Vcpu v = AnyOf(space);
        bool alone = space.Vcpus.All(o => o == v || !o.InGuest);
        Note($"clear accessed {space.Index}");
        long result = CallOn(v, a => Machine.Code.ClearAccessed(a, space.Index));
        Machine.Check(result == 0 || (result > 0 && alone && v.Area->FlushPending == 1), "clear accessed");
    }

    private void ForgetLinear()
    {
        SpaceModel? space = AnyChild();
        // The host asks only then; at other times it must do no harm either.
        if (space == null || (K->Spaces[space.Index].CopyReads == 0 && _random.Next(8) != 0))
            return;
        Vcpu v = AnyOf(space);
        bool alone = space.Vcpus.All(o => o == v || !o.InGuest);
        Note($"forget linear {space.Index}");
        long result = CallOn(v, a => Machine.Code.ForgetLinear(a, space.Index));
        Machine.Check(result == 0 || (result == -16 && !alone), "forget linear");
    }

    /// <summary>The host reads a snapshot's memory by its tables.</summary>
    private void HostReads()
    {
        SpaceModel? space = AnySnapshot(_random.Next(2) == 0);
        if (space == null)
            return;
        for (int n = 0; n < 40; n++)
        {
            int i = AnyPage();
            if (!space.Pages[i].Mapped)
                continue;
            PageKind kind = Translate.Lookup(K, K->Spaces + space.Index, AddressOf(i), out _, out ulong physical);
            if (kind == PageKind.Absent && space.Pages[i].Is(Vma.Pooled))
                Machine.Check(space.Pages[i].Cell!.Value == 0, "untouched pooled page");
            else
                CheckWords(space, i, physical, space.Pages[i].Cell!.Value);
        }
    }

    /// <summary>While one vCPU waits for the host without the lock, others run.</summary>
    private void Meanwhile(Vcpu waiting)
    {
        if (_nested || _random.Next(2) == 0)
            return;
        _nested = true;
        for (int n = _random.Next(4); n > 0; n--)
        {
            SpaceModel space = AnySpace();
            Vcpu v = AnyOf(space);
            // The vCPUs of the space that is being worked on may be stopped, or change what is being looked at.
            if (v == waiting || v.Area->Space == _stoppedSpace || (space.Index == _busySpace && space.Index != 0) || _sharedBusy)
                continue;
            Touch(space, v, AnyPage(), (Access)_random.Next(3));
        }
        _nested = false;
    }

    /// <summary>A kicked vCPU goes back in at once and reads, while the kernel still holds the lock.</summary>
    private void Kicked(Vcpu v)
    {
        if (_random.Next(2) == 0)
            return;
        SpaceModel? space = v.Area->Space == 0 ? AnySnapshot(view: true) : _snapshots.GetValueOrDefault(v.Area->Space);
        if (space == null)
            return;
        v.Enter();
        for (int n = 0; n < 20; n++)
        {
            int page = AnyPage();
            if (!IsChanging(space, page) && space.Expected(page, Access.Read) == 0 && !space.Pages[page].Is(Vma.Shared)
                && v.Translate(space.AddressOf(page), Access.Read, mayUseCache: true, out ulong physical))
            {
                CheckWords(space, page, physical, space.Pages[page].Cell!.Value);
            }
        }
    }

    /// <summary>Every space reads the pages that were worked on, with the translations it has.</summary>
    public void ReadAll()
    {
        foreach (SpaceModel space in _snapshots.Values.Prepend(_main))
        {
            foreach (Vcpu v in space.Vcpus)
            {
                for (int area = 0; area < PageCount; area += 512)
                {
                    foreach (ulong hot in HotPages)
                    {
                        if (space.Pages[area + (int)hot].Mapped)
                            Touch(space, v, area + (int)hot, Access.Read);
                    }
                }
            }
        }
    }

    public void Dispose()
    {
        Machine.Dispose();
        System.Runtime.InteropServices.NativeMemory.Free(_populated);
    }
}
