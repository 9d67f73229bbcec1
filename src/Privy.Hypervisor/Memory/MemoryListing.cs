using System.Globalization;
using System.Text;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;

namespace Privy.Hypervisor.Memory;

/// <summary>
/// Writes what /proc/PID/maps and its relatives say of a process of the program: its own mappings with the rights it has itself, in the host kernel's
/// format. The host's files describe the hypervisor, whose memory the program cannot reach. They only lend what is not known here: the file behind a mapping, and
/// how much of main's memory there is.
/// </summary>
internal static class MemoryListing
{
    /// <summary>Pages of a range, as a forked child's own table has them.</summary>
    /// <param name="Own">Copies and pages of its own.</param>
    /// <param name="Shared">Still at their place in main.</param>
    internal readonly record struct PageCount(ulong Own, ulong Shared);

    /// <summary>What the listing is about.</summary>
    /// <param name="Mappings">The mappings, ascending.</param>
    /// <param name="BreakStart">Where the heap begins.</param>
    /// <param name="Break">Where the heap ends.</param>
    /// <param name="CountPages">In a forked child: counts a range by its table. Null in main, for which the host counts.</param>
    internal sealed record Subject(IReadOnlyList<Vma> Mappings, ulong BreakStart, ulong Break, Func<ulong, ulong, PageCount>? CountPages);

    /// <summary>An entry of the host's list; the fields with their units as the host prints them.</summary>
    private sealed record HostEntry(ulong Start, ulong End, ulong Offset, string Device, string Inode, string Name)
    {
        internal List<(string Name, string Value)> Fields { get; } = [];

        internal bool IsFile => Name.StartsWith('/');

        internal bool Counted { get; set; }
    }

    private sealed record Piece(ulong Start, ulong End, string Rights, ulong Offset, string Device, string Inode, string Name)
    {
        internal HostEntry? Host { get; init; }
    }

    /// <summary>Writes a listing.</summary>
    /// <param name="report">Which file.</param>
    /// <param name="subject">The process.</param>
    /// <param name="hostText">The host's file of the same name; for a forked child its maps will do.</param>
    internal static string Write(MemoryReport report, Subject subject, string hostText)
    {
        var entries = Parse(hostText);
        var text = new StringBuilder();
        var totals = new List<(string Name, ulong Value)>();
        foreach (var piece in Pieces(subject, entries))
        {
            if (report != MemoryReport.Rollup)
                WriteHeader(text, piece);
            if (report == MemoryReport.Maps)
                continue;
            foreach (var (name, value) in subject.CountPages is { } count ? OwnFields(piece, count(piece.Start, piece.End)) : HostFields(piece))
            {
                if (report == MemoryReport.Smaps)
                    WriteField(text, name, value);
                else if (Kilobytes(value) is { } kilobytes && name is not ("Size" or "KernelPageSize" or "MMUPageSize"))
                    AddTo(totals, name, kilobytes);
            }
        }

        if (report == MemoryReport.Rollup && subject.Mappings.Count != 0)
        {
            WriteHeader(text, new Piece(subject.Mappings[0].Start, subject.Mappings[^1].End, "---p", 0, "00:00", "0", "[rollup]"));
            foreach (var (name, value) in totals)
                WriteField(text, name, InKilobytes(value));
        }

        return text.ToString();
    }

    private static List<Piece> Pieces(Subject subject, List<HostEntry> entries)
    {
        var pieces = new List<Piece>();
        var next = 0;
        foreach (var vma in subject.Mappings)
        {
            while (next < entries.Count && entries[next].End <= vma.Start)
                next++;
            for (var at = vma.Start; at < vma.End;)
            {
                while (next < entries.Count && entries[next].End <= at)
                    next++;
                var host = next < entries.Count && entries[next].Start <= at ? entries[next] : null;
                var end = Math.Min(vma.End, host?.End ?? (next < entries.Count ? Math.Max(entries[next].Start, at + 1) : vma.End));
                // A child's own mapping may lie where the host has another one of main's.
                if ((vma.Flags & Vma.Pooled) != 0)
                    host = null;
                foreach (var (from, to, name) in Named(subject, vma, at, end))
                    Add(pieces, vma, from, to, host, name);
                at = end;
            }
        }

        // The pages of the kernel's that every program has; they are mapped for the program, too.
        pieces.AddRange(entries.Where(e => e.Name is "[vdso]" || e.Name.StartsWith("[vvar", StringComparison.Ordinal))
            .Select(e => new Piece(e.Start, e.End, e.Name is "[vdso]" ? "r-xp" : "r--p", 0, "00:00", "0", e.Name) { Host = e }));
        pieces.Sort((a, b) => a.Start.CompareTo(b.Start));
        return pieces;
    }

    private static IEnumerable<(ulong From, ulong To, string Name)> Named(Subject subject, Vma vma, ulong start, ulong end)
    {
        if ((vma.HostTag & VmaTag.Stack) != 0)
            return [(start, end, "[stack]")];
        var heapStart = Math.Clamp(AddressSpace.PageUp(subject.BreakStart), start, end);
        var heapEnd = Math.Clamp(AddressSpace.PageUp(subject.Break), heapStart, end);
        return ((ulong, ulong, string)[])[(start, heapStart, ""), (heapStart, heapEnd, "[heap]"), (heapEnd, end, "")];
    }

    private static void Add(List<Piece> pieces, in Vma vma, ulong from, ulong to, HostEntry? host, string name)
    {
        if (from >= to)
            return;
        var rights = string.Create(4, vma.Flags, static (text, flags) =>
        {
            text[0] = (flags & Vma.Read) != 0 ? 'r' : '-';
            text[1] = (flags & Vma.Write) != 0 ? 'w' : '-';
            text[2] = (flags & Vma.Execute) != 0 ? 'x' : '-';
            text[3] = (flags & Vma.Shared) != 0 ? 's' : 'p';
        });
        var piece = host is { IsFile: true }
            ? new Piece(from, to, rights, host.Offset + (from - host.Start), host.Device, host.Inode, host.Name) { Host = host }
            : new Piece(from, to, rights, 0, "00:00", "0", name) { Host = host };
        // Linux shows neighbours of a kind as one.
        if (pieces.Count > 0 && pieces[^1] is var last && last.End == from && last.Rights == rights && last.Name == piece.Name && !piece.Name.StartsWith('/') && last.Host == host)
            pieces[^1] = last with { End = to };
        else
            pieces.Add(piece);
    }

    private static void WriteHeader(StringBuilder text, Piece piece)
    {
        const int nameColumn = 73;
        var start = text.Length;
        _ = text.Append(CultureInfo.InvariantCulture, $"{piece.Start:x8}-{piece.End:x8} {piece.Rights} {piece.Offset:x8} {piece.Device} {piece.Inode} ");
        if (piece.Name.Length != 0)
            _ = text.Append(' ', Math.Max(0, nameColumn - (text.Length - start))).Append(piece.Name);
        _ = text.Append('\n');
    }

    private static void WriteField(StringBuilder text, string name, string value)
    {
        const int unitWidth = 3;
        // Linux aligns numbers; names of flags follow at once.
        var width = value.EndsWith(" kB", StringComparison.Ordinal) ? 24 + unitWidth : char.IsAsciiDigit(value[^1]) ? 24 : 0;
        var gap = Math.Max(1, width - name.Length - 1 - value.Length);
        _ = text.Append(name).Append(':').Append(' ', gap).Append(value).Append('\n');
    }

    /// <summary>
    /// The host may hold as one mapping what the program has as several, and then has one count for them: the first of them gets it, so that sums
    /// are right.
    /// </summary>
    private static IEnumerable<(string Name, string Value)> HostFields(Piece piece)
    {
        var isFirst = piece.Host is { Counted: false };
        if (piece.Host is not { } host)
            yield break;
        host.Counted = true;
        foreach (var (name, value) in host.Fields)
        {
            yield return name switch
            {
                "Size" => (name, InKilobytes((piece.End - piece.Start) >> 10)),
                "VmFlags" => (name, $"{(piece.Rights[0] == 'r' ? "rd " : "")}{(piece.Rights[1] == 'w' ? "wr " : "")}{(piece.Rights[2] == 'x' ? "ex " : "")}{WithoutRights(value)}"),
                "KernelPageSize" or "MMUPageSize" => (name, value),
                _ => (name, isFirst || Kilobytes(value) is null ? value : InKilobytes(0)),
            };
        }
    }

    private static IEnumerable<(string Name, string Value)> OwnFields(Piece piece, PageCount pages)
    {
        const ulong pageKilobytes = Layout.PageSize >> 10;
        var (own, shared) = (pages.Own * pageKilobytes, pages.Shared * pageKilobytes);
        yield return ("Size", InKilobytes((piece.End - piece.Start) >> 10));
        yield return ("KernelPageSize", InKilobytes(pageKilobytes));
        yield return ("MMUPageSize", InKilobytes(pageKilobytes));
        yield return ("Rss", InKilobytes(own + shared));
        yield return ("Pss", InKilobytes(own + (shared / 2)));
        yield return ("Shared_Clean", InKilobytes(0));
        yield return ("Shared_Dirty", InKilobytes(shared));
        yield return ("Private_Clean", InKilobytes(0));
        yield return ("Private_Dirty", InKilobytes(own));
        yield return ("Referenced", InKilobytes(own + shared));
        yield return ("Anonymous", InKilobytes(piece.Name.StartsWith('/') ? own : own + shared));
        yield return ("LazyFree", InKilobytes(0));
        yield return ("AnonHugePages", InKilobytes(0));
        yield return ("ShmemPmdMapped", InKilobytes(0));
        yield return ("FilePmdMapped", InKilobytes(0));
        yield return ("Shared_Hugetlb", InKilobytes(0));
        yield return ("Private_Hugetlb", InKilobytes(0));
        yield return ("Swap", InKilobytes(0));
        yield return ("SwapPss", InKilobytes(0));
        yield return ("Locked", InKilobytes(0));
    }

    private static List<HostEntry> Parse(string text)
    {
        var entries = new List<HostEntry>();
        foreach (var line in text.AsSpan().EnumerateLines())
        {
            var space = line.IndexOf(' ');
            var first = space < 0 ? line : line[..space];
            if (first.EndsWith(":"))
            {
                if (entries.Count > 0)
                    entries[^1].Fields.Add((first[..^1].ToString(), line[space..].Trim().ToString()));
                continue;
            }

            var dash = first.IndexOf('-');
            if (dash < 0)
                continue;
            // address rights offset device inode name; only the name may hold spaces
            var parts = line.ToString().Split(' ', 6);
            entries.Add(new HostEntry(Hexadecimal(first[..dash]), Hexadecimal(first[(dash + 1)..]), Hexadecimal(parts[2]), parts[3], parts[4], parts.Length > 5 ? parts[5].TrimStart() : ""));
        }

        return entries;
    }

    private static string WithoutRights(string flags) => string.Join(' ', flags.Split(' ').Where(flag => flag is not ("rd" or "wr" or "ex")));

    private static ulong Hexadecimal(ReadOnlySpan<char> text) => ulong.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private static string InKilobytes(ulong value) => string.Create(CultureInfo.InvariantCulture, $"{value} kB");

    private static ulong? Kilobytes(string value) =>
        value.EndsWith(" kB", StringComparison.Ordinal) && ulong.TryParse(value.AsSpan(0, value.Length - 3), NumberStyles.AllowLeadingWhite, CultureInfo.InvariantCulture, out var number) ? number : null;

    private static void AddTo(List<(string Name, ulong Value)> totals, string name, ulong value)
    {
        var at = totals.FindIndex(total => total.Name == name);
        if (at < 0)
            totals.Add((name, value));
        else
            totals[at] = (name, totals[at].Value + value);
    }
}
