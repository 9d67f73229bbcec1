using System.Globalization;
using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Processes;

/// <summary>
/// execve(2). Main starts over as a new <c>privy run</c>, so that a wrapper script's server is privileged too; a forked child
/// becomes a native process.
/// </summary>
internal static class ExecCall
{
    private const int MaxStrings = 1 << 17;

    internal static long Execute(GuestThread thread, ulong pathAddress, ulong argumentsAddress, ulong environmentAddress)
    {
        if (!thread.TryReadString(pathAddress, out var path))
            return -Errno.EFAULT;
        List<string> environment = [];
        var error = ReadStrings(thread, argumentsAddress, out var arguments);
        if (error == 0)
            error = ReadStrings(thread, environmentAddress, out environment);
        if (error < 0)
            return error;
        if (SyscallPaths.ResolveProgram(thread, ProgramBytes.Encode(path)) is { } own)
            path = ProgramBytes.FromText(own);
        error = CheckExecutable(path);
        if (error < 0)
            return error;
        return thread.Process == thread.Process.Table.Main
            ? Restart(thread, path, arguments, environment)
            : Spawn(thread, path, arguments, environment);
    }

    private static long Restart(GuestThread thread, string path, List<string> arguments, List<string> environment)
    {
        // After exec there is no way back, and this exec is of Privy itself: see first that the program can be loaded.
        if (!ProgramResolver.IsLoadable(ProgramBytes.ToText(path)))
            return -Errno.ENOEXEC;
        if (!path.Contains('/', StringComparison.Ordinal))
            path = "./" + path;
        var signals = thread.Process.Signals;
        var (mask, ignored) = (thread.SignalMask, thread.Process.IgnoredSignals);
        List<string> own = [ProgramBytes.FromText(Environment.ProcessPath!), .. thread.Process.Table.RestartArguments, "--signals", string.Create(CultureInfo.InvariantCulture, $"{mask.Bits:x},{ignored.Bits:x}")];
        if (arguments.Count > 0)
            own.AddRange(["--argv0", arguments[0]]);
        own.AddRange(["--", path, .. arguments.Skip(1)]);
        var takeSignalsBack = signals.Exec(thread.ThreadSignals);
        var takeLimitsBack = thread.Process.Limits.Apply();
        // No signal is lost or takes effect in between: all of it, kicks too, waits for the new Privy, which knows the program's own mask by its arguments.
        HostSignals.BeginExec(thread.ThreadId);
        signals.HandOver(thread.ThreadSignals, HostSignals.KeepForSuccessor);
        var result = HostProcess.Exec(ProgramBytes.Encode(own[0]), own.ConvertAll(ProgramBytes.Encode), environment.ConvertAll(ProgramBytes.Encode), null, ignored);
        takeLimitsBack();
        takeSignalsBack();
        HostSignals.EndExec(info => signals.Send(info, thread.ThreadSignals));
        return result;
    }

    private static long Spawn(GuestThread thread, string path, List<string> arguments, List<string> environment)
    {
        var process = thread.Process;
        var (mask, ignored) = (thread.SignalMask, process.IgnoredSignals);
        // A group outlives its leader: while others are in it, nobody can get its id as a process id.
        var leadsOthers = process.Group == process.Id && Array.Exists(process.Table.All(), p => p != process && p.Group == process.Id && p.NativeId != 0);
        if (NativeSpawn.CanChooseId && !leadsOthers && WillExecute(path))
        {
            // The id is free only when this thread is gone; so there must be no way back.
            process.Successor = () =>
            {
                process.Table.StandIns.Replace(process);
                return SpawnNow(process, path, arguments, environment, mask, ignored, process.Id);
            };
            process.BeginExit(0, thread);
            return 0;
        }

        var id = SpawnNow(process, path, arguments, environment, mask, ignored, 0);
        if (id < 0)
            return id;
        process.NativeId = (int)id;
        process.Signals.BecomeNative((int)id);
        process.VforkDone?.Set();
        process.BeginExit(0, thread);
        return 0;
    }

    /// <summary>True when nothing but a lack of memory can keep the file from being executed.</summary>
    private static bool WillExecute(string path)
    {
        try
        {
            var text = ProgramBytes.ToText(path);
            var program = ProgramResolver.Resolve(text.Contains('/', StringComparison.Ordinal) ? text : "./" + text, null, []);
            using var file = File.OpenRead(program.Path);
            return ElfImage.Read(program.Path, file).Interpreter is var interpreter && (interpreter is null || File.Exists(interpreter));
        }
        catch (Exception e) when (e is ProgramException or IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static unsafe long SpawnNow(GuestProcess process, string path, List<string> arguments, List<string> environment, SignalSet mask, SignalSet ignored, int wantedId)
    {
        List<SpawnAction> actions = [];
        if (process.Session == process.Id)
            actions.Add(SpawnAction.NewSession());
        else if (process.Group != process.Table.Main.Group)
            actions.Add(SpawnAction.SetProcessGroup(GroupInHost(process)));
        var limits = stackalloc ResourceLimit[ResourceLimits.Count];
        actions.AddRange(process.Limits.ForExec((nint)limits));
        List<SignalInfo> handed = [];
        var id = NativeSpawn.Spawn(ProgramBytes.Encode(path), arguments.ConvertAll(ProgramBytes.Encode), environment.ConvertAll(ProgramBytes.Encode), mask, ignored, wantedId, made =>
        {
            // The terminal reaches it from here on. What it has sent before is on the way to the child: two of the same are one while they are pending.
            if (process.Group == process.Table.Main.Group)
                HostSignals.Settle();
            process.HearsTerminal = true;
            handed = process.Signals.HandTo(made);
        }, [.. actions]);
        if (id < 0)
        {
            process.HearsTerminal = false;
            foreach (var info in handed)
                _ = process.Signals.Send(info);
        }

        return id;
    }

    /// <summary>The group to join; 0: one of its own.</summary>
    private static int GroupInHost(GuestProcess process) => process.Table.Find(process.Group) switch
    {
        // A stand-in leads a group of its id.
        { StandIn: not null } => process.Group,
        { } leader when leader == process => 0,
        { NativeId: > 0 and var native } => native,
        _ => process.Group,
    };

    private static unsafe long CheckExecutable(string path)
    {
        const int atFdCwd = -100, executeOk = 1;
        fixed (byte* name = ProgramBytes.Encode(path + '\0'))
        {
            var result = HostSyscall.Raw(SyscallNumber.faccessat, unchecked((ulong)atFdCwd), (ulong)name, executeOk);
            if (result < 0)
                return result;
        }

        return Directory.Exists(ProgramBytes.ToText(path)) ? -Errno.EACCES : 0;
    }

    private static long ReadStrings(GuestThread thread, ulong array, out List<string> list)
    {
        list = [];
        for (; array != 0 && list.Count < MaxStrings; array += sizeof(ulong))
        {
            if (!thread.TryReadWord(array, out var address))
                return -Errno.EFAULT;
            if (address == 0)
                break;
            if (!thread.TryReadString(address, out var text))
                return IsTooLong(thread, address) ? -Errno.E2BIG : -Errno.EFAULT;
            list.Add(text);
        }

        return 0;
    }

    /// <summary>A string that could not be read is longer than any may be (MAX_ARG_STRLEN), or not all there.</summary>
    private static bool IsTooLong(GuestThread thread, ulong address)
    {
        Span<byte> last = stackalloc byte[1];
        return thread.TryRead(address + GuestThread.LongestString, last);
    }
}
