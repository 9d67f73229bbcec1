using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;

namespace Privy.Integration.Tests;

/// <summary>Input that nobody writes on purpose: the hypervisor neither breaks down nor hangs, nor does it write where nothing is its business.</summary>
public sealed partial class FuzzTests
{
    private static readonly Dictionary<string, string> Canaries = new() { ["PRIVY_CANARIES"] = "1" };

    /// <summary>
    /// Damaged ELF files, made from real ones. Each is refused with one line, or runs, whatever comes of that. That it ran is known by the statistics, which
    /// are printed when the program has ended, by a signal of its own too: a hypervisor that broke down prints none.
    /// </summary>
    [PrivyFact(Needs.Compiler | Needs.StaticLibrary | Needs.Privy)]
    public void Damaged_programs()
    {
        var count = Long.Count(40);
        string[] originals = [TestPrograms.Build("dump"), TestPrograms.Build("dump", Flavour.Static), TestPrograms.Build("dump", Flavour.StaticPie), TestPrograms.Build("dump", Flavour.DynamicNonPie), "/bin/true", Interpreter()];
        var files = originals.Select(File.ReadAllBytes).ToArray();
        int refused = 0, ran = 0, looped = 0;
        var statuses = new SortedDictionary<int, int>();
        using var folder = new TemporaryFolder();
        var path = Path.Combine(folder, "damaged");
        for (var i = 0; i < count; i++)
        {
            var random = new Random(HashCode.Combine(Long.Seed, 17) + i);
            var which = random.Next(files.Length);
            var file = Damage(files[which], random);
            File.WriteAllBytes(path, file);
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            using var run = new ProcessRun(Launcher.Command(path, [], "--stats", "--memory", "256M"), folder, environment: Canaries);
            var hasBegun = false;
            var waited = Stopwatch.StartNew();
            while (!run.HasExited && waited.Elapsed < TimeSpan.FromSeconds(10)) Thread.Sleep(2);
            if (!run.HasExited)
            {
                // Random code may run for ever. A hypervisor that hangs has not come so far as to give its thread the program's name.
                looped++;
                hasBegun = File.ReadAllText($"/proc/{run.Id}/comm") == "damaged\n";
                run.Signal(Native.SIGTERM);
            }

            var result = run.Wait(TimeSpan.FromSeconds(120));
            var what = $"seed {Long.Seed}, file {i} (of {originals[which]}, kept as {Path.Combine(Launcher.Artifacts, "abuse", "damaged")})";
            var lines = Both.WithoutWarnings(result.Errors).Split('\n', StringSplitOptions.RemoveEmptyEntries);
            var hasRun = hasBegun && result.ExitCode == 143 || result.Errors.Contains("privy: canary pages intact: ", StringComparison.Ordinal);
            var isRefused = result.ExitCode is 126 or 127 && lines is [['p', 'r', 'i', 'v', 'y', ':', ' ', ..]];
            if (Long.IsDefect(result.Errors) || hasRun == isRefused)
            {
                Directory.CreateDirectory(Path.Combine(Launcher.Artifacts, "abuse"));
                File.WriteAllBytes(Path.Combine(Launcher.Artifacts, "abuse", "damaged"), file);
                Assert.Fail($"{what}: neither refused in one line nor run to its end\n{result}");
            }

            if (hasRun)
                ran++;
            else
                refused++;
            statuses[result.ExitCode] = statuses.GetValueOrDefault(result.ExitCode) + 1;
        }

        Assert.Equal(count, ran + refused);
        Assert.True(count < 30 || (ran > 0 && refused > 0), $"seed {Long.Seed}: {ran} ran, {refused} were refused: nothing was tried");
        Long.Report("elf", $"{count} damaged ELF files, seed {Long.Seed}: {refused} refused with one line, {ran} ran ({looped} until they were ended); exit statuses {string.Join(", ", statuses.Select(s => $"{s.Key}: {s.Value}"))}; no canary hit, no defect, none hung");
    }

    /// <summary>
    /// Random system calls with random arguments from threads and forked children. Each call may fail as it likes; the program comes to its end,
    /// and nothing outside of its memory has changed.
    /// </summary>
    [PrivyTheory(Needs.Compiler | Needs.Privy)]
    [InlineData(1, "auto")]
    [InlineData(3, "exit")]
    public void Random_system_calls(int threads, string syscalls)
    {
        var program = TestPrograms.Build("fuzz", Flavour.Dynamic, "-fno-stack-protector");
        const int PerRun = 10_000;
        long calls = 0, children = 0;
        var count = Long.Count(2000);
        int died = 0, rounds = 0;
        for (var seed = (long)Long.Seed; calls < count; seed++)
        {
            using var folder = new TemporaryFolder();
            var result = ProcessRun.Run(
                Launcher.Command(program, [$"{seed}", $"{Math.Clamp(count - calls, 10 * threads, PerRun)}", $"{threads}"], "--memory", "512M", "--stats", "--syscalls", syscalls),
                folder, environment: Canaries, limit: TimeSpan.FromSeconds(400));
            rounds++;
            if (Long.IsDefect(result.Errors) || !result.Errors.Contains("privy: canary pages intact: ", StringComparison.Ordinal) || result.LeftOver.Count > 0)
                Assert.Fail($"seed {seed}, {threads} threads, --syscalls {syscalls}\n{result}");
            var match = Calls().Match(result.Text);
            if (match.Success)
            {
                Assert.True(match.Groups[3].Value == "0", $"seed {seed}: children hang\n{result}");
                calls += long.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture);
                children += long.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture);
                continue;
            }

            // The program may have hurt itself; then it counts for nothing. Always, and the test would be none.
            died++;
            Assert.True(died < 3 + rounds / 4, $"seed {seed}: the program keeps dying\n{result}");
        }

        Long.Report($"syscalls-{syscalls}", $"{calls} random system calls from {threads} threads and {children} forked children (--syscalls {syscalls}), seeds from {Long.Seed}: {rounds} runs, {died} ended by what they did to themselves; no canary hit, no defect, none hung");
    }

    /// <summary>One change or a few: most of them where the loader looks.</summary>
    private static byte[] Damage(byte[] original, Random random)
    {
        var file = (byte[])original.Clone();
        var headers = (int)BinaryPrimitives.ReadInt64LittleEndian(file.AsSpan(32));
        var count = BinaryPrimitives.ReadUInt16LittleEndian(file.AsSpan(56));
        for (var changes = 1 + random.Next(4); changes > 0; changes--)
        {
            switch (random.Next(8))
            {
                case 0: // a byte of the file's header
                    file[random.Next(64)] = Odd(random);
                    break;
                case 1: // a field of a program header
                case 2:
                    var at = headers + random.Next(count) * 56;
                    var field = random.Next(8);
                    var length = field < 2 ? 4 : 8;
                    at += field < 2 ? field * 4 : 8 + (field - 2) * 8;
                    var value = Field(random, file.Length);
                    BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(at), length == 8 ? value : (value & 0xffffffff) | BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(at)) >> 32 << 32);
                    break;
                case 3: // entry point, places and numbers of the tables
                    var place = random.Next(3);
                    BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(24 + 8 * place), Field(random, file.Length));
                    break;
                case 4: // two program headers change places
                    int one = headers + random.Next(count) * 56, two = headers + random.Next(count) * 56;
                    var copy = file.AsSpan(one, 56).ToArray();
                    file.AsSpan(two, 56).CopyTo(file.AsSpan(one));
                    copy.CopyTo(file, two);
                    break;
                case 5: // anywhere near the beginning, where notes, symbols and relocations are
                    for (var n = random.Next(1, 40); n > 0; n--) file[random.Next(Math.Min(file.Length, 8192))] = Odd(random);
                    break;
                case 6: // anywhere
                    for (var n = random.Next(1, 200); n > 0; n--) file[random.Next(file.Length)] = Odd(random);
                    break;
                case 7 when changes == 1: // cut
                    Array.Resize(ref file, random.Next(4) == 0 ? random.Next(200) : random.Next(file.Length));
                    return file;
            }
        }

        return file;
    }

    private static byte Odd(Random random) => random.Next(3) switch { 0 => 0, 1 => 0xff, _ => (byte)random.Next(256) };

    private static ulong Field(Random random, int length) => random.Next(10) switch
    {
        0 => 0,
        1 => ulong.MaxValue,
        2 => 1UL << random.Next(64),
        3 => (1UL << random.Next(64)) - 1,
        4 => 0x0800_0000_0000 + (ulong)random.Next(1 << 28),
        5 => 0x1000_0000_0000 + (ulong)random.Next(1 << 28),
        6 => 0x7fff_ffff_f000 - (ulong)random.Next(1 << 14),
        7 => (ulong)random.Next(length),
        8 => (ulong)random.Next(1 << 30) << 12,
        _ => (ulong)random.NextInt64(),
    };

    private static string Interpreter() => new[] { "/lib64/ld-linux-x86-64.so.2" }.First(File.Exists);

    [GeneratedRegex(@"^seed \d+: (\d+) calls, (\d+) children, \d+ ended otherwise, (\d+) stuck", RegexOptions.Multiline)]
    private static partial Regex Calls();
}
