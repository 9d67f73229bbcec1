namespace Privy.Kernel.Tests.Simulation;

/// <summary>The content of a page; shared mappings of several spaces share it.</summary>
internal sealed class Cell(ulong value)
{
    public ulong Value { get; set; } = value;
}

/// <summary>A page of a space as the program must see it.</summary>
internal struct PageModel
{
    public Cell? Cell;
    public uint Flags;
    public ulong Birth;

    /// <summary>Main: counts writes to the page and mappings of it.</summary>
    public ulong Version;

    /// <summary>A snapshot's page of MAP_SHARED memory that main gave up: no longer shared.</summary>
    public bool Detached;

    public readonly bool Mapped => Cell != null;

    public readonly bool Is(uint flag) => (Flags & flag) != 0;
}

/// <summary>A space as the program must see it.</summary>
internal sealed class SpaceModel(int index, int pages)
{
    public int Index { get; } = index;

    public PageModel[] Pages { get; } = new PageModel[pages];

    public List<Vcpu> Vcpus { get; } = [];

    /// <summary>A snapshot that main's vCPUs read, at <see cref="AddressOf"/>.</summary>
    public bool IsView { get; init; }

    /// <summary>Where the vCPUs of the space find a page.</summary>
    public ulong AddressOf(int page)
    {
        ulong address = World.AddressOf(page);
        return IsView ? Layout.ViewBase + (ulong)Index * Layout.ViewSpan + address % Layout.ViewSpan : address;
    }

    /// <summary>A view of some of the space's pages.</summary>
    public SpaceModel View(int index, int start, int end)
    {
        var view = new SpaceModel(index, Pages.Length) { IsView = true };
        for (int i = start; i < end; i++)
        {
            PageModel page = Pages[i];
            page.Cell = new Cell(page.Cell!.Value);
            page.Flags = (page.Flags & ~(Vma.Write | Vma.Execute)) | Vma.Read;
            view.Pages[i] = page;
        }
        view.Vcpus.AddRange(Vcpus);
        return view;
    }

    public SpaceModel Fork(int index)
    {
        var copy = new SpaceModel(index, Pages.Length);
        for (int i = 0; i < Pages.Length; i++)
        {
            PageModel page = Pages[i];
            if (page.Cell != null && (!page.Is(Vma.Shared) || page.Detached))
                page.Cell = new Cell(page.Cell.Value);
            copy.Pages[i] = page;
        }
        return copy;
    }

    /// <summary>0, or the fault code.</summary>
    public int Expected(int page, Access access)
    {
        if (!Pages[page].Mapped)
            return FaultCode.NotMapped;
        uint need = access switch
        {
            Access.Write => Vma.Write,
            Access.Fetch => Vma.Execute,
            _ => Vma.Read | Vma.Write | Vma.Execute,
        };
        return Pages[page].Is(need) ? 0 : FaultCode.Denied;
    }
}
