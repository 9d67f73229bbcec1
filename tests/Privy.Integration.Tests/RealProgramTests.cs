using System.Text;

namespace Privy.Integration.Tests;

/// <summary>Programs as they come with the system: coreutils, bash, perl, python.</summary>
public sealed class RealProgramTests
{
    [PrivyTheory]
    [InlineData("/bin/true", "", 0)]
    [InlineData("/bin/false", "", 1)]
    [InlineData("/usr/bin/seq", "1 20000", 0)]
    [InlineData("/bin/ls", "/usr/share/doc", 0)]
    [InlineData("/bin/ls", "-la /etc", 0)]
    [InlineData("/bin/ls", "/does/not/exist", 2)]
    [InlineData("/bin/cat", "/etc/passwd /etc/group", 0)]
    [InlineData("/bin/cat", "/does/not/exist", 1)]
    [InlineData("/usr/bin/wc", "/etc/services /etc/passwd", 0)]
    [InlineData("/usr/bin/head", "-c 1000 /dev/zero", 0)]
    [InlineData("/usr/bin/expr", "6 * 7", 0)]
    [InlineData("/usr/bin/factor", "1234567890123 999999000001", 0)]
    [InlineData("/usr/bin/basename", "/a/b/c.txt .txt", 0)]
    [InlineData("/bin/uname", "-sm", 0)]
    [InlineData("/usr/bin/id", "", 0)]
    [InlineData("/usr/bin/nproc", "", 0)]
    [InlineData("/usr/bin/env", "-i A=1 B=2 /usr/bin/env", 0)]
    [InlineData("/usr/bin/env", "-i /bin/sh -c exit\t9", 9)]
    [InlineData("/usr/bin/timeout", "5 /bin/true", 0)]
    [InlineData("/usr/bin/timeout", "0.2 /bin/sleep 20", 124)]
    [InlineData("/usr/bin/find", "/usr/share/doc -maxdepth 1 -name lib*", 0)]
    [InlineData("/usr/bin/stat", "-c %n:%s:%a /etc/passwd", 0)]
    public void Coreutils(string program, string arguments, int exitCode) =>
        Both.Run(program, arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(a => a.Replace('\t', ' ')), exitCode: exitCode);

    [PrivyFact]
    public void Cat_passes_its_input_through()
    {
        var bytes = new byte[3_000_000];
        new Random(17).NextBytes(bytes);
        var result = Both.Run("/bin/cat", [], input: bytes, exitCode: 0);
        Assert.Equal(bytes, result.Output);
    }

    [PrivyFact]
    public void Sort_of_many_lines()
    {
        var random = new Random(18);
        var lines = new StringBuilder();
        for (var i = 0; i < 100_000; i++)
            lines.Append(random.Next()).Append(' ').Append(i).Append('\n');
        Both.Run("/usr/bin/sort", ["-n", "-S", "1M"], input: Encoding.ASCII.GetBytes(lines.ToString()), exitCode: 0);
        Both.Run("/usr/bin/sort", ["--parallel=4", "-k2"], input: Encoding.ASCII.GetBytes(lines.ToString()), exitCode: 0);
    }

    [PrivyFact]
    public void Dd_and_sha256sum_of_a_large_file()
    {
        Both.Run("/usr/bin/sha256sum", ["big"], exitCode: 0, prepare: folder =>
        {
            var bytes = new byte[64 << 20];
            new Random(19).NextBytes(bytes);
            File.WriteAllBytes(Path.Combine(folder, "big"), bytes);
        });
        Both.Bash("dd if=/dev/zero of=copy bs=1M count=40 2>/dev/null && dd if=copy bs=4321 skip=7 2>/dev/null | sha256sum && stat -c %s copy");
    }

    [PrivyTheory]
    [InlineData("echo $((6 * 7)); echo \"${BASH_VERSION%%.*}\"; for i in 1 2 3; do echo $i; done", 0)]
    [InlineData("seq 1 10000 | grep 7 | sort -rn | sed -n 1,5p | tr '\\n' ' '; echo \"${PIPESTATUS[@]}\"", 0)]
    [InlineData("x=$(echo inner $(echo nested $(echo deep))); echo \"$x\"; y=`date +%Y | wc -c`; echo $y", 0)]
    [InlineData("(cd /; pwd; exit 3); echo $?; pwd >/dev/null; (a=1; (a=2; echo $a); echo $a)", 0)]
    [InlineData("sleep 0.1 & p=$!; wait $p; echo $?; (exit 5) & wait $!; echo $?; false & true & wait; echo done", 0)]
    [InlineData("for i in 1 2 3 4 5; do (sleep 0.0$i; echo $i >f$i) & done; wait; cat f1 f2 f3 f4 f5", 0)]
    [InlineData("cat <<EOF\nline $((1+1))\n$(echo two)\nEOF\ncat <<'EOF'\n$literal\nEOF\nread -r a b <<<\"x y\"; echo $b", 0)]
    [InlineData("trap 'echo trapped USR1' USR1; trap 'echo bye' EXIT; kill -USR1 $$; echo after; exit 4", 4)]
    [InlineData("trap 'echo got TERM; exit 9' TERM; (sleep 0.2; kill -TERM $$) & while :; do sleep 0.05; done", 9)]
    [InlineData("diff <(seq 1 5) <(seq 1 6); echo $?; tee >(cat >t1) <<<hello; sleep 0.2; cat t1", 0)]
    [InlineData("f() { local v=$1; [ $v -gt 0 ] && { echo $v; f $((v - 1)); }; }; f 30 | wc -l", 0)]
    [InlineData("set -o pipefail; false | true; echo $?; true | false | true; echo $?", 0)]
    [InlineData("yes | head -1000 | wc -l; seq 100000 | head -1", 0)]
    [InlineData("sh -c 'exec echo executed'; sh -c 'exec /bin/false'; echo $?; exec sh -c 'exit 21'", 21)]
    [InlineData("no-such-command-at-all 2>/dev/null; echo $?; /etc/passwd 2>/dev/null; echo $?; { sh -c 'kill -9 $$'; } 2>/dev/null; echo $?", 0)]
    [InlineData("exit 128", 128)]
    [InlineData("kill -TERM $$", 143)]
    [InlineData("kill -KILL $$", 137)]
    [InlineData("echo out; echo err >&2; exec 3>three; echo three >&3; exec 3>&-; cat three; exit 2", 2)]
    [InlineData("mkfifo p; (for i in 1 2 3; do echo $i; done >p) & while read -r l; do echo got $l; done <p", 0)]
    [InlineData("coproc { while read -r l; do echo \"<$l>\"; done; }; echo hi >&${COPROC[1]}; read -r a <&${COPROC[0]}; echo $a; kill $COPROC_PID", 0)]
    [InlineData("for i in $(seq 1 100); do x=$(echo $i); done; echo $x", 0)]
    [InlineData("find /usr/share/doc -maxdepth 1 -type d | xargs -n 50 echo | wc -l | xargs", 0)]
    [InlineData("printf '%s\\n' c a b | sort | tee all | sed 's/a/A/' | awk '{print NR, $1}'; cat all", 0)]
    [InlineData("umask 077; touch x; stat -c %a x; (umask 0; touch y; stat -c %a y); umask", 0)]
    [InlineData("ulimit -n 256; sh -c 'ulimit -n'; ulimit -n", 0)]
    [InlineData("time -p true 2>/dev/null; SECONDS=0; [ $SECONDS -lt 5 ] && echo ok; ( set -e; false; echo no ); echo $?", 0)]
    [InlineData("a=(1 2 3); declare -A m=([x]=1 [y]=2); echo ${#a[@]} ${m[x]} ${a[@]:1}; [[ abc =~ ^a(.)c$ ]] && echo ${BASH_REMATCH[1]}", 0)]
    [InlineData("tar cf - -C /usr/share/doc/bash . | tar tf - | sort | head -20; gzip -c /etc/services | gunzip | cmp - /etc/services && echo same", 0)]
    public void Bash_scripts(string script, int exitCode) => Both.Bash(script, exitCode: exitCode);

    [PrivyTheory]
    [InlineData("#!/bin/sh\necho \"$0 $# $1|$2\"\nexit 5\n", 5)]
    [InlineData("#!/bin/bash -e\necho before\nfalse\necho never\n", 1)]
    [InlineData("#! /usr/bin/env bash\necho through env \"$@\"\n", 0)]
    [InlineData("#!/bin/cat\nthis is printed by cat\n", 1)]
    public void Scripts_with_an_interpreter_line(string script, int exitCode) =>
        Both.Run("./script", ["first", "second arg"], exitCode: exitCode, prepare: folder => WriteExecutable(Path.Combine(folder, "script"), script));

    [PrivyFact(Needs.Perl)]
    public void Perl() => Both.Run("/usr/bin/perl", ["-e", """
        use strict; use warnings;
        $| = 1;
        my %h = map { $_ => $_ * $_ } 1 .. 1000;
        my $sum = 0; $sum += $h{$_} for sort { $a <=> $b } keys %h;
        print "sum $sum\n";
        my $pid = fork(); die unless defined $pid;
        if ($pid == 0) { $h{1} = 99; print "child $h{1}\n"; exit 7; }
        waitpid($pid, 0); print "status ", $? >> 8, " parent $h{1}\n";
        my $out = `echo from backticks`; print $out;
        open(my $p, "-|", "seq 1 5") or die; my @l = <$p>; close $p; print scalar(@l), " lines\n";
        local $SIG{ALRM} = sub { print "alarm\n" }; alarm 1; select(undef, undef, undef, 5);
        local $SIG{USR1} = sub { print "usr1\n" }; kill 'USR1', $$; 
        my $text = join ",", map { sprintf "%03d", $_ } 1 .. 100; $text =~ s/0(\d)/<$1>/g; print length $text, "\n";
        pipe(my $r, my $w); if (!fork()) { close $r; print $w "through a pipe\n"; close $w; exit 0 } close $w; print <$r>; wait;
        exit 3;
        """], exitCode: 3);

    [PrivyFact(Needs.Python)]
    public void Python() => Both.Run("/usr/bin/python3", ["-I", "-c", """
        import hashlib, os, signal, subprocess, sys, threading, time, tempfile, mmap, json, socket
        print(hashlib.sha256(b"x" * 10_000_000).hexdigest())
        print(subprocess.run(["sh", "-c", "cat; exit 4"], input=b"to cat", capture_output=True))
        try:
            subprocess.run(["/does/not/exist"])
        except FileNotFoundError as e:
            print("not found", e.errno)
        total, lock = 0, threading.Lock()
        def work(n):
            global total
            for i in range(n):
                with lock: total += 1
        threads = [threading.Thread(target=work, args=(2000,)) for _ in range(8)]
        [t.start() for t in threads]; [t.join() for t in threads]
        print(total)
        sys.stdout.flush()
        data = bytearray(b"parent" * 100000)
        pid = os.fork()
        if pid == 0:
            data[:5] = b"child"; print(bytes(data[:6])); sys.stdout.flush(); os._exit(11)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), bytes(data[:6]))
        signal.signal(signal.SIGALRM, lambda *a: print("alarm"))
        signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(0.2)
        m = mmap.mmap(-1, 1 << 20); m[:5] = b"hello"; print(m[:5])
        a, b = socket.socketpair(); a.sendall(json.dumps({"k": list(range(5))}).encode()); print(json.loads(b.recv(1000)))
        p = subprocess.Popen(["sleep", "30"]); p.terminate(); print(p.wait())
        sys.exit(6)
        """], exitCode: 6, seconds: 90);

    [PrivyFact(Needs.Python)]
    public void Python_multiprocessing() => Both.Run("/usr/bin/python3", ["-I", "-c", """
        import multiprocessing as mp
        def square(x): return x * x
        if __name__ == "__main__":
            mp.set_start_method("fork")
            with mp.Pool(3) as p:
                print(sum(p.map(square, range(2000))))
            q = mp.Queue(); w = mp.Process(target=q.put, args=(list(range(1000)),)); w.start(); print(sum(q.get())); w.join(); print(w.exitcode)
        """], exitCode: 0, seconds: 90);

    /// <summary>A terminal as standard input and output: size, modes, Ctrl+C reaches the program's handler.</summary>
    [PrivyFact(Needs.Script)]
    public void On_a_terminal()
    {
        using var folder = new TemporaryFolder();
        var command = Launcher.Command("/bin/bash", ["-c", "tty >/dev/null && echo is a tty; stty size; trap 'echo interrupted; exit 5' INT; echo ready; sleep 20"]);
        var script = string.Join(' ', command.Select(a => $"'{a.Replace("'", "'\\''", StringComparison.Ordinal)}'"));
        // Several times, at different moments: the news that `sleep` died of the signal must not reach the shell before the shell's own signal does.
        for (var attempt = 0; attempt < 6; attempt++)
        {
            // exec: a shell of script(1) in between would die of the signal itself, and not every shell leaves out that process.
            using var run = new ProcessRun([Requirements.Require("script"), "-qefc", "exec " + script, "/dev/null"], folder, keepInputOpen: true);
            WaitFor(run, "ready");
            // bash itself may miss one that comes just before it starts `sleep`: its trap then waits for all of that, natively as well.
            Thread.Sleep(50 + attempt * 30);
            run.Input.WriteByte(3);
            run.Input.Flush();
            var result = run.Wait(TimeSpan.FromSeconds(30));
            Assert.Contains("is a tty", result.Text, StringComparison.Ordinal);
            Assert.True(result.ExitCode == 5 && result.Text.Contains("interrupted", StringComparison.Ordinal), $"attempt {attempt}: exit code {result.ExitCode}, {result.Text}");
        }
    }

    /// <summary>Signals sent to the process that the user sees reach the program.</summary>
    [PrivyTheory]
    [InlineData(Native.SIGTERM, "TERM")]
    [InlineData(Native.SIGINT, "INT")]
    [InlineData(Native.SIGUSR1, "USR1")]
    [InlineData(Native.SIGABRT, "ABRT")]
    [InlineData(Native.SIGSEGV, "SEGV")]
    [InlineData(Native.SIGBUS, "BUS")]
    [InlineData(Native.SIGFPE, "FPE")]
    [InlineData(Native.SIGILL, "ILL")]
    [InlineData(Native.SIGTRAP, "TRAP")]
    [InlineData(Native.SIGSTKFLT, "STKFLT")]
    public void External_signals_reach_the_handler(int signal, string name)
    {
        using var folder = new TemporaryFolder();
        using var run = new ProcessRun(Launcher.Command("/bin/bash", ["-c", $"trap 'echo got {name}; exit 33' {name}; echo ready; while :; do read -t 0.1 x; done"]), folder, keepInputOpen: true);
        WaitFor(run, "ready");
        run.Signal(signal);
        var result = run.Wait(TimeSpan.FromSeconds(20));
        Assert.Equal($"ready\ngot {name}\n", result.Text);
        Assert.Equal(33, result.ExitCode);
    }

    // The second one meets the signal somewhere on its way through execve.
    [PrivyTheory]
    [InlineData("read line")]
    [InlineData("exec sleep 60")]
    public void External_kill_without_a_handler_ends_it(string waiting)
    {
        using var folder = new TemporaryFolder();
        foreach (var (signal, expected) in new[] { (Native.SIGTERM, 143), (Native.SIGINT, 130), (Native.SIGKILL, 137), (Native.SIGABRT, 134), (Native.SIGSEGV, 139), (Native.SIGBUS, 135), (Native.SIGSTKFLT, 144) })
        {
            using var run = new ProcessRun(Launcher.Command("/bin/sh", ["-c", $"echo ready; {waiting}"]), folder, keepInputOpen: true);
            WaitFor(run, "ready");
            run.Signal(signal);
            var result = run.Wait(TimeSpan.FromSeconds(20));
            Assert.Equal(expected, result.ExitCode);
        }
    }

    internal static void WaitFor(ProcessRun run, string text)
    {
        var deadline = DateTime.UtcNow.AddSeconds(30);
        while (!run.OutputSoFar.Contains(text, StringComparison.Ordinal))
        {
            if (DateTime.UtcNow > deadline || run.HasExited)
                Assert.Fail($"\"{text}\" was never printed: {run.OutputSoFar}\n{run.ErrorsSoFar}");
            Thread.Sleep(10);
        }
    }

    internal static void WriteExecutable(string path, string text)
    {
        File.WriteAllText(path, text);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }
}
