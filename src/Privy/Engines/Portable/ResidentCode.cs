using Privy.Hypervisor.Boot;

namespace Privy.Engines.Portable;

/// <summary>The resident code (src/Privy.Resident), put into executable memory. It stays there as long as the process lives.</summary>
internal static unsafe class ResidentCode
{
    // Arguments of a function call, the number first, into the registers of a system call; the result is negative for an error.
    private static ReadOnlySpan<byte> SystemCallStub =>
    [
        0x48, 0x89, 0xf8,               // mov rax, rdi
        0x48, 0x89, 0xf7,               // mov rdi, rsi
        0x48, 0x89, 0xd6,               // mov rsi, rdx
        0x48, 0x89, 0xca,               // mov rdx, rcx
        0x4d, 0x89, 0xc2,               // mov r10, r8
        0x4d, 0x89, 0xc8,               // mov r8, r9
        0x4c, 0x8b, 0x4c, 0x24, 0x08,   // mov r9, [rsp+8]
        0x0f, 0x05,                     // syscall
        0xc3,                           // ret
    ];

    private const int StubRoom = 64;

    private static readonly Entries Loaded = Load();

    /// <summary>A system call from resident code.</summary>
    internal static void* SystemCall => Loaded.Base;

    internal static void* HandleFaults => Loaded.HandleFaults;

    /// <summary>A system call.</summary>
    /// <returns>Its result, or a negative errno.</returns>
    internal static long Call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) =>
        ((delegate* unmanaged<long, long, long, long, long, long, long, long>)Loaded.Base)(number, a, b, c, d, e, f);

    internal static long Take(Resident.RegionState* region, Resident.SnapshotNode* node, ulong* written) =>
        ((delegate* unmanaged<Resident.RegionState*, Resident.SnapshotNode*, ulong*, long>)Loaded.Take)(region, node, written);

    internal static void CloseView(Resident.RegionState* region, Resident.SnapshotNode* node) =>
        ((delegate* unmanaged<Resident.RegionState*, Resident.SnapshotNode*, long>)Loaded.CloseView)(region, node);

    internal static byte* Unlink(Resident.RegionState* region, Resident.SnapshotNode* node) =>
        (byte*)((delegate* unmanaged<Resident.RegionState*, Resident.SnapshotNode*, long>)Loaded.Unlink)(region, node);

    internal static void Changed(Resident.RegionState* region, Resident.SnapshotNode* newer, Resident.SnapshotNode* older, ulong* pages) =>
        ((delegate* unmanaged<Resident.RegionState*, Resident.SnapshotNode*, Resident.SnapshotNode*, ulong*, long>)Loaded.Changed)(region, newer, older, pages);

    private static Entries Load()
    {
        using Stream resource = typeof(ResidentCode).Assembly.GetManifestResourceStream("privy-resident.o")
            ?? throw new InvalidDataException("The assembly does not carry its resident code.");
        var file = new byte[resource.Length];
        resource.ReadExactly(file);
        var elf = new ElfObject(file);

        // Calls within it are relative and resolved by the compiler, and it has no data: it can lie anywhere, as it is.
        ElfSection code = elf.Sections.First(s => s.Name == "__managedcode");
        if (elf.Sections.Any(s => s.Type == ElfObject.SectionRelocations && s.Info == code.Index))
            throw new InvalidDataException("The resident code refers to something outside of itself.");

        long length = StubRoom + (long)code.Size;
        byte* memory = NativeMethods.Map(
            length, NativeMethods.ProtectionRead | NativeMethods.ProtectionWrite, NativeMethods.MapPrivate | NativeMethods.MapAnonymous, -1, "machine code");
        SystemCallStub.CopyTo(new Span<byte>(memory, StubRoom));
        elf.Content(code).CopyTo(new Span<byte>(memory + StubRoom, (int)code.Size));
        NativeMethods.Protect(memory, length, NativeMethods.ProtectionRead | NativeMethods.ProtectionExecute);

        void* Find(string name)
        {
            ElfSymbol symbol = elf.Symbols.First(s => s.Name == name && s.Section == code.Index);
            return memory + StubRoom + symbol.Value;
        }

        return new Entries
        {
            Base = memory,
            HandleFaults = Find("privy_handle_faults"),
            Take = Find("privy_take"),
            CloseView = Find("privy_close_view"),
            Unlink = Find("privy_unlink"),
            Changed = Find("privy_changed"),
        };
    }

    private sealed class Entries
    {
        internal void* Base { get; init; }

        internal void* HandleFaults { get; init; }

        internal void* Take { get; init; }

        internal void* CloseView { get; init; }

        internal void* Unlink { get; init; }

        internal void* Changed { get; init; }
    }
}
