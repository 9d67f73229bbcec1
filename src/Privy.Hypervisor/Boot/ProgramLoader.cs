using System.Buffers.Binary;
using System.Text;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Memory;
using Privy.Hypervisor.Processes;
using Privy.Kernel;
using static Privy.Hypervisor.Host.HostMemory;

namespace Privy.Hypervisor.Boot;

/// <summary>Maps a program and its interpreter into main, and lays out the first stack (System V ABI x86-64, 3.4).</summary>
internal sealed unsafe class ProgramLoader(MainSpace space, Vcpu vcpu, Machine machine)
{
    private const ulong ImageOffset = 0x5555_5000UL;
    private const ulong DefaultStack = 8UL << 20;
    private const ulong LargestStack = 1UL << 30;

    /// <summary>Loads a program.</summary>
    /// <returns>Entry point and stack pointer of the first thread.</returns>
    internal (ulong Entry, ulong StackPointer) Load(ResolvedProgram program, IReadOnlyList<string> environment)
    {
        using var file = Open(program.Path);
        var image = ElfImage.Read(program.Path, file);
        var interpreterPath = image.Interpreter;
        using var interpreterFile = interpreterPath is null ? null : OpenInterpreter(program.Path, interpreterPath);
        var interpreter = interpreterFile is null ? null : ElfImage.Read(interpreterPath!, interpreterFile);

        var bias = Place(image);
        space.BreakStart = space.Break = image.High + bias;
        // The heap may grow over a quarter of the window; what is mapped without an address comes from above.
        space.BreakLimit = image.Relocatable ? Layout.WindowBase + (machine.Map.WindowSize / 4) : Layout.LowWindowEnd;
        MapSegments(image, file, bias);
        var entry = image.Entry + bias;
        ulong interpreterBase = 0;
        if (interpreter is not null)
        {
            var room = space.Map(vcpu, 0, interpreter.High - interpreter.Low, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (room < 0)
                throw new ProgramException($"no room for {interpreterPath} in the window (errno {-room})", ProgramException.NotExecutable);
            interpreterBase = (ulong)room - interpreter.Low;
            MapSegments(interpreter, interpreterFile!, interpreterBase);
            entry = interpreter.Entry + interpreterBase;
        }

        return (entry, BuildStack(program, environment, image, bias, interpreterBase));
    }

    private static FileStream Open(string path)
    {
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            throw new ProgramException($"{path}: {e.Message}", ProgramException.NotExecutable);
        }
    }

    private static FileStream OpenInterpreter(string program, string interpreter) =>
        File.Exists(interpreter)
            ? Open(interpreter)
            : throw new ProgramException($"{program}: its ELF interpreter {interpreter} does not exist; install the C library it was built for", ProgramException.NotFound);

    private ulong Place(ElfImage image)
    {
        if (image.Relocatable)
        {
            var at = Layout.WindowBase + ImageOffset;
            if (!space.Claim(at, at + image.High - image.Low))
                throw new ProgramException("the window is not empty at the start", ProgramException.NotExecutable);
            return at - image.Low;
        }

        if (image.Low < Layout.LargePageSize || image.High > Layout.LowWindowEnd)
            throw new ProgramException($"{image.Path} wants to lie at 0x{image.Low:x}; fixed addresses work from 2 MB to 1 GB. Build it position-independent (-pie)", ProgramException.NotExecutable);
        var reserved = HostMemory.Map(Layout.LargePageSize, Layout.LowWindowEnd - Layout.LargePageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE);
        if (reserved < 0)
            throw new ProgramException($"{image.Path} wants to lie at 0x{image.Low:x}, where Privy's own process has something. Build it position-independent (-pie)", ProgramException.NotExecutable);
        machine.State->LowEnd = Layout.LowWindowEnd;
        return 0;
    }

    private void MapSegments(ElfImage image, FileStream file, ulong bias)
    {
        var descriptor = (int)file.SafeFileHandle.DangerousGetHandle();
        foreach (var segment in image.Segments)
        {
            var protection = ((segment.Flags & 4) != 0 ? PROT_READ : 0) | ((segment.Flags & 2) != 0 ? PROT_WRITE : 0) | ((segment.Flags & 1) != 0 ? PROT_EXEC : 0);
            var start = (segment.Address + bias) & ~(Layout.PageSize - 1);
            var fileEnd = segment.Address + bias + segment.FileSize;
            var memoryEnd = AddressSpace.PageUp(segment.Address + bias + segment.MemorySize);
            if (segment.FileSize != 0)
            {
                Check(image, space.Map(vcpu, start, fileEnd - start, protection, MAP_PRIVATE | MAP_FIXED, descriptor, segment.Offset & ~(Layout.PageSize - 1)));
                // Private memory of the host is writable whatever the segment's rights.
                if (segment.MemorySize > segment.FileSize && (segment.Flags & 2) != 0)
                    new Span<byte>((void*)fileEnd, (int)(AddressSpace.PageUp(fileEnd) - fileEnd)).Clear();
            }

            var anonymousStart = segment.FileSize == 0 ? start : AddressSpace.PageUp(fileEnd);
            if (memoryEnd > anonymousStart)
                Check(image, space.Map(vcpu, anonymousStart, memoryEnd - anonymousStart, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
        }
    }

    private static void Check(ElfImage image, long result)
    {
        if (result < 0)
            throw new ProgramException($"{image.Path} cannot be mapped (errno {-result})", ProgramException.NotExecutable);
    }

    private ulong BuildStack(ResolvedProgram program, IReadOnlyList<string> environment, ElfImage image, ulong bias, ulong interpreterBase)
    {
        var size = StackSize();
        const int mapStack = 0x20000;
        var gap = space.Map(vcpu, 0, AddressSpace.StackGap + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | mapStack, -1, 0);
        if (gap < 0)
            throw new ProgramException($"no room for a stack of {size >> 20} MB (errno {-gap})", ProgramException.NotExecutable);
        // Nothing may lie right below, or a stack that overflows would run into it instead of faulting.
        space.ReserveStackGap(vcpu, (ulong)gap, size);

        var top = (ulong)gap + AddressSpace.StackGap + size;
        var at = top;
        var name = Push(ref at, Encoding.UTF8.GetBytes(program.ExecutedName));
        var environmentEnd = at;
        var environmentAddresses = environment.AsEnumerable().Reverse().Select(e => Push(ref at, ProgramBytes.Encode(e))).Reverse().ToArray();
        var environmentStart = at;
        // Linux lays the strings out upwards in order, argv[0] first, and programs that change their title rely on it.
        var argumentAddresses = program.Arguments.AsEnumerable().Reverse().Select(a => Push(ref at, ProgramBytes.Encode(a))).Reverse().ToArray();
        var platform = Push(ref at, "x86_64"u8);
        CommandLine.Show(argumentAddresses.Length == 0 ? environmentStart : argumentAddresses[0], environmentStart, environmentEnd);
        at -= 16;
        const long getrandom = 318;
        _ = HostSyscall.Raw(getrandom, at, 16, 0);
        var random = at;

        List<ulong> words = [(ulong)argumentAddresses.Length, .. argumentAddresses, 0, .. environmentAddresses, 0];
        foreach (var (key, value) in Auxiliary(image, bias, interpreterBase, name, platform, random))
        {
            words.Add(key);
            words.Add(value);
        }

        words.Add(0);
        words.Add(0);
        at = (at - ((ulong)words.Count * sizeof(ulong))) & ~15UL;
        for (var i = 0; i < words.Count; i++)
            ((ulong*)at)[i] = words[i];
        return at;
    }

    private IEnumerable<(ulong Key, ulong Value)> Auxiliary(ElfImage image, ulong bias, ulong interpreterBase, ulong name, ulong platform, ulong random)
    {
        const ulong phdr = 3, phent = 4, phnum = 5, pageSize = 6, baseAddress = 7, flags = 8, entry = 9, uid = 11, euid = 12, gid = 13, egid = 14, platformKey = 15,
            hwcap = 16, clockTicks = 17, secure = 23, randomKey = 25, hwcap2 = 26, executable = 31, vdso = 33, minimumSignalStack = 51;
        var host = HostAuxiliary();
        if (machine.Vdso is { } found)
            yield return (vdso, found.ImageBase);
        yield return (hwcap, host.GetValueOrDefault(hwcap));
        yield return (pageSize, Layout.PageSize);
        yield return (clockTicks, host.GetValueOrDefault(clockTicks, 100UL));
        yield return (phdr, image.HeadersAddress + bias);
        yield return (phent, ProgramHeader.Bytes);
        yield return (phnum, (ulong)image.Headers.Length);
        yield return (baseAddress, interpreterBase);
        yield return (flags, 0);
        yield return (entry, image.Entry + bias);
        foreach (var key in new[] { uid, euid, gid, egid })
            yield return (key, host.GetValueOrDefault(key));
        yield return (secure, 0);
        yield return (randomKey, random);
        yield return (hwcap2, machine.HasFsGsBase ? host.GetValueOrDefault(hwcap2) : 0);
        yield return (executable, name);
        yield return (platformKey, platform);
        yield return (minimumSignalStack, host.GetValueOrDefault(minimumSignalStack, 2048UL));
    }

    private static Dictionary<ulong, ulong> HostAuxiliary()
    {
        var values = new Dictionary<ulong, ulong>();
        var bytes = File.ReadAllBytes("/proc/self/auxv").AsSpan();
        for (; bytes.Length >= 16; bytes = bytes[16..])
            values[BinaryPrimitives.ReadUInt64LittleEndian(bytes)] = BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]);
        return values;
    }

    private static ulong StackSize()
    {
        const long prlimit64 = 302;
        const ulong stackLimit = 3;
        var limit = stackalloc ulong[2];
        if (HostSyscall.Raw(prlimit64, 0, stackLimit, 0, (ulong)limit) < 0 || limit[0] > LargestStack)
            return DefaultStack;
        return Math.Max(AddressSpace.PageUp(limit[0]), 1UL << 20);
    }

    private static ulong Push(ref ulong at, ReadOnlySpan<byte> bytes)
    {
        at -= (ulong)bytes.Length + 1;
        bytes.CopyTo(new Span<byte>((void*)at, bytes.Length));
        *(byte*)(at + (ulong)bytes.Length) = 0;
        return at;
    }
}
