using System.Buffers.Binary;

namespace Privy.Integration.Tests;

/// <summary>What a user meets when something is wrong with the program: a status as a shell gives it, and one line that says what to do.</summary>
public sealed class ErrorTests
{
    private static RunResult Start(string program, Action<string>? prepare = null)
    {
        using var folder = new TemporaryFolder();
        prepare?.Invoke(folder);
        // natively a shell stands in for Privy: it gives the same statuses
        var command = Launcher.IsNative ? ["/bin/bash", "-c", "\"$0\"", program] : Launcher.Command(program, []);
        return ProcessRun.Run(command, folder);
    }

    private static void OneLine(RunResult result, int exitCode, params string[] words)
    {
        Assert.Equal("", result.Text);
        Assert.True(result.ExitCode == exitCode, $"The exit status should be {exitCode}. {result}");
        if (Launcher.IsNative)
            return;
        var lines = result.Errors.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.True(lines.Length == 1, $"There should be one line, not a stack trace. {result}");
        Assert.StartsWith("privy: ", lines[0], StringComparison.Ordinal);
        foreach (var word in words)
            Assert.True(lines[0].Contains(word, StringComparison.OrdinalIgnoreCase), $"The line should say \"{word}\": {lines[0]}");
    }

    [PrivyTheory]
    [InlineData("/does/not/exist")]
    [InlineData("no-such-program-in-path")]
    [InlineData("./missing")]
    public void Program_not_found_is_127(string program) => OneLine(Start(program), 127, program);

    [PrivyFact]
    public void Program_not_executable_is_126() => OneLine(Start("./plain", folder => File.WriteAllText(Path.Combine(folder, "plain"), "echo hello\n")), 126, "./plain");

    [PrivyFact]
    public void A_folder_is_126() => OneLine(Start("/usr"), 126, "/usr");

    [PrivyFact]
    public void Missing_interpreter_of_a_script()
    {
        var result = Start("./script", folder => RealProgramTests.WriteExecutable(Path.Combine(folder, "script"), "#!/does/not/exist\n"));
        Assert.True(result.ExitCode is 126 or 127, result.ToString());
        if (!Launcher.IsNative)
            OneLine(result, result.ExitCode, "/does/not/exist");
    }

    [PrivyFact]
    public void Wrong_architecture() => Broken(bytes => BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(18), 183), "processor");

    [PrivyFact]
    public void A_32_bit_program() => Broken(bytes =>
    {
        bytes[4] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(18), 3);
    }, "32");

    [PrivyFact]
    public void Program_headers_behind_the_end() => Broken(bytes => BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(32), 1UL << 40), null);

    [PrivyFact]
    public void Absurd_number_of_program_headers() => Broken(bytes => BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(56), 0xffff), null);

    [PrivyFact]
    public void Absurd_segment_addresses() => Broken(bytes =>
    {
        var headers = (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(32));
        for (var at = headers; at < headers + 56 * 10; at += 56)
            if (BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(at)) == 1)
                BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(at + 40), ulong.MaxValue - 100);
    }, null, or: [139, 137]);

    [PrivyFact]
    public void Truncated_to_its_first_bytes() => Broken(null, null, length: 40);

    [PrivyFact]
    public void Interpreter_of_an_ELF_file_is_missing()
    {
        var result = Broken(bytes =>
        {
            var at = bytes.AsSpan().IndexOf("/lib64/ld-linux-x86-64.so.2"u8);
            Assert.True(at > 0);
            "/lib64/ld-missing-thing.so"u8.CopyTo(bytes.AsSpan(at));
            bytes[at + 26] = 0;
        }, null, or: [127]);
        if (!Launcher.IsNative)
            Assert.Contains("ld-missing-thing", result.Errors, StringComparison.Ordinal);
    }

    /// <summary>Random bytes in the headers of an executable: any status a shell may give, but no defect of Privy.</summary>
    [PrivyTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    public void Random_damage_to_the_headers(int seed)
    {
        using var folder = new TemporaryFolder();
        var path = Path.Combine(folder, "broken");
        var bytes = File.ReadAllBytes("/bin/true");
        var random = new Random(seed);
        for (var i = 0; i < 12; i++)
            bytes[16 + random.Next(600)] = (byte)random.Next(256);
        File.WriteAllBytes(path, bytes);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        var result = ProcessRun.Run(Launcher.IsNative ? ["/bin/bash", "-c", path] : Launcher.Command(path, []), folder, limit: TimeSpan.FromSeconds(30));
        Assert.DoesNotContain("Unhandled exception", result.Errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at Privy.", result.Errors, StringComparison.Ordinal);
    }

    private static RunResult Broken(Action<byte[]>? damage, string? word, int? length = null, int[]? or = null)
    {
        var result = Start("./broken", folder =>
        {
            var bytes = File.ReadAllBytes("/bin/true");
            damage?.Invoke(bytes);
            File.WriteAllBytes(Path.Combine(folder, "broken"), bytes[..(length ?? bytes.Length)]);
            File.SetUnixFileMode(Path.Combine(folder, "broken"), UnixFileMode.UserRead | UnixFileMode.UserExecute);
        });
        Assert.True(result.ExitCode == 126 || or?.Contains(result.ExitCode) == true || Launcher.IsNative && result.ExitCode != 0, $"The exit status should be 126. {result}");
        if (!Launcher.IsNative && result.ExitCode is 126 or 127)
            OneLine(result, result.ExitCode, word is null ? ["./broken"] : ["./broken", word]);
        return result;
    }
}
