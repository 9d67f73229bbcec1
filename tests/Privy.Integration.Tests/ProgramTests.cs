namespace Privy.Integration.Tests;

/// <summary>Processes, threads, signals, faults, memory and files: C programs that check themselves, run natively and under Privy.</summary>
public sealed class ProgramTests
{
    public static TheoryData<string> Cases(string program) => TestPrograms.Cases(program);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "forks")]
    public void Processes(string name) => TestPrograms.Run("forks", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "stress")]
    public void Snapshots_under_stress(string name) => TestPrograms.Run("stress", name, seconds: 180);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "threads")]
    public void Threads(string name) => TestPrograms.Run("threads", name);

    /// <summary>Calls posted to a polling thread, calls that leave the guest, and what the program gets by default.</summary>
    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(BusyCases))]
    public void Many_calls(string name, string syscalls) => TestPrograms.Run("busy", name, seconds: 120, options: ["--syscalls", syscalls]);

    public static TheoryData<string, string> BusyCases()
    {
        var data = new TheoryData<string, string>();
        foreach (var name in TestPrograms.Cases("busy"))
            foreach (var syscalls in new[] { "auto", "exit", "ring" })
                data.Add(name, syscalls);
        return data;
    }

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "writes")]
    public void Small_writes_of_a_child(string name) => TestPrograms.Run("writes", name);

    /// <summary>Writes to connections that are put off for a while.</summary>
    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(SendsCases))]
    public void Writes_to_connections(string name, string syscalls) => TestPrograms.Run("sends", name, seconds: 120, options: ["--syscalls", syscalls]);

    public static TheoryData<string, string> SendsCases()
    {
        var data = new TheoryData<string, string>();
        foreach (var name in TestPrograms.Cases("sends"))
            foreach (var syscalls in new[] { "auto", "ring" })
                data.Add(name, syscalls);
        return data;
    }

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "signals")]
    public void Signals(string name) => TestPrograms.Run("signals", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "execs")]
    public void Signals_across_exec(string name) => TestPrograms.Run("execs", name, seconds: 120);

    /// <summary>A program that replaces itself again and again gets each signal that is sent to it, whenever it comes.</summary>
    [PrivyFact(Needs.Compiler)]
    public void Signals_from_outside_across_exec()
    {
        const int Count = 150;
        var seed = Environment.TickCount;
        var random = new Random(seed);
        using var folder = new TemporaryFolder();
        using var run = new ProcessRun(Launcher.Command(TestPrograms.Build("execs"), ["die_counting"]), folder, environment: new Dictionary<string, string> { ["EXECS_COUNT"] = $"{Count}" });
        RealProgramTests.WaitFor(run, "ready");
        for (var i = 0; i < Count; i++)
        {
            run.Signal(50);
            Thread.Sleep(TimeSpan.FromMicroseconds(random.Next(4000)));
        }

        var result = run.Wait(TimeSpan.FromSeconds(120));
        Assert.True(result.ExitCode == 0 && result.Text == $"ready\n{Count} of {Count}\nOK die_counting\n", $"seed {seed}\n{result}");
    }

    /// <summary>
    /// With no room for a real-time signal (RLIMIT_SIGPENDING is the user's, so others may fill it) every kick of a vCPU is refused. The threads that a
    /// fork must stop, or that must hear of a copy, leave the guest all the same.
    /// </summary>
    [PrivyTheory(Needs.Compiler | Needs.Privy)]
    [InlineData("rule2")]
    [InlineData("rule6")]
    [InlineData("threads")]
    [InlineData("stress", "concurrent")]
    [InlineData("forks", "nested")]
    [InlineData("signals", "timers")]
    public void A_full_queue_of_signals_loses_no_kick(string program, params string[] names)
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run(["/bin/bash", "-c", "ulimit -i 0 && exec \"$@\"", "full", .. Launcher.Command(TestPrograms.Build(program), names)], folder, limit: TimeSpan.FromSeconds(120));
        Assert.True(result.ExitCode == 0, result.ToString());
    }

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "vectors")]
    public void Vector_state(string name) => TestPrograms.Run("vectors", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "faults")]
    public void Faults(string name) => TestPrograms.Run("faults", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "operands")]
    public void Faults_of_all_kinds_of_instructions(string name) => TestPrograms.Run("operands", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "memory")]
    public void Memory(string name) => TestPrograms.Run("memory", name);

    [PrivyTheory(Needs.Compiler)]
    [MemberData(nameof(Cases), "files")]
    public void Files_and_sockets(string name) => TestPrograms.Run("files", name);

    [PrivyTheory(Needs.Compiler)]
    [InlineData("forks")]
    [InlineData("threads")]
    [InlineData("signals")]
    [InlineData("vectors")]
    [InlineData("memory")]
    public void All_cases_in_one_process(string program) => TestPrograms.Run(program, seconds: 180);

    [PrivyTheory(Needs.Compiler)]
    [InlineData("die_null_write", 139)]
    [InlineData("die_abort", 134)]
    [InlineData("die_illegal", 132)]
    [InlineData("die_divide", 136)]
    [InlineData("die_kill", 137)]
    [InlineData("die_term", 143)]
    [InlineData("die_stack", 139)]
    [InlineData("die_in_thread", 139)]
    [InlineData("die_blocked", 139)]
    [InlineData("die_exit_77", 77)]
    public void A_program_that_dies_ends_like_natively(string name, int exitCode) =>
        Both.Run(TestPrograms.Build("faults"), [name], exitCode: exitCode);

    [PrivyFact(Needs.Compiler)]
    public void A_child_that_outlives_its_parent_sees_the_end_of_its_pipe()
    {
        var result = Both.Run(TestPrograms.Build("forks"), ["die_before_its_child"], exitCode: 3);
        Assert.Equal("a child is left\nand sees the end\n", result.Text);
    }

    /// <summary>The shell must see the same status, too: a crash may not become a stack trace of Privy.</summary>
    [PrivyFact(Needs.Compiler)]
    public void A_crash_prints_nothing_of_Privys_own()
    {
        using var folder = new TemporaryFolder();
        var result = ProcessRun.Run(Launcher.Command(TestPrograms.Build("faults"), ["die_null_write"]), folder);
        Assert.Equal("about to die\n", result.Text);
        Assert.Equal("", result.Errors);
        Assert.Equal(139, result.ExitCode);
    }

    [PrivyTheory(Needs.Compiler | Needs.StaticLibrary)]
    [InlineData(Flavour.Dynamic)]
    [InlineData(Flavour.StaticPie)]
    [InlineData(Flavour.Static)]
    [InlineData(Flavour.DynamicNonPie)]
    public void Arguments_environment_and_auxiliary_vector(Flavour flavour)
    {
        var result = Both.Run(TestPrograms.Build("dump", flavour), ["one", "two words", "", "-x", "--", "ä€"],
            environment: new Dictionary<string, string> { ["GREETING"] = "hello world", ["EMPTY"] = "" }, exitCode: 0);
        Assert.Contains("env GREETING=hello world\n", result.Text, StringComparison.Ordinal);
        Assert.Contains("stack alignment ok", result.Text, StringComparison.Ordinal);
    }

    [PrivyTheory(Needs.Compiler | Needs.StaticLibrary)]
    [InlineData("threads", "thread_local_storage", Flavour.StaticPie)]
    [InlineData("threads", "thread_local_storage", Flavour.Static)]
    [InlineData("threads", "thread_local_storage", Flavour.DynamicNonPie)]
    [InlineData("forks", "nested", Flavour.StaticPie)]
    [InlineData("forks", "nested", Flavour.Static)]
    [InlineData("forks", "nested", Flavour.DynamicNonPie)]
    [InlineData("signals", "siginfo", Flavour.StaticPie)]
    [InlineData("signals", "siginfo", Flavour.Static)]
    [InlineData("signals", "siginfo", Flavour.DynamicNonPie)]
    [InlineData("rule1", "read_into_data", Flavour.Static)]
    [InlineData("rule1", "read_into_data", Flavour.DynamicNonPie)]
    [InlineData("rule4", "brk", Flavour.Static)]
    [InlineData("rule6", "own_brk", Flavour.DynamicNonPie)]
    [InlineData("memory", "brk_grows_and_shrinks", Flavour.Static)]
    [InlineData("rule7", "vdso", Flavour.Static)]
    public void Other_ways_to_link(string program, string name, Flavour flavour) => TestPrograms.Run(program, name, flavour);
}
