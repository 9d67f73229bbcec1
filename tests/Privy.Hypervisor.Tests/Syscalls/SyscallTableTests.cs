using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Text;
using System.Text.RegularExpressions;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;

namespace Privy.Hypervisor.Tests.Syscalls;

public class SyscallTableTests
{
    /// <summary>Every description: the calls, and the commands of the multiplexed ones.</summary>
    internal static IEnumerable<(string Name, ulong? Command, SyscallDescription Call, int CommandArgument)> AllDescriptions()
    {
        for (var number = 0; number < SyscallTable.Count; number++)
        {
            if (SyscallTable.Find(number) is not { } call) continue;
            yield return (call.Name, null, call, -1);
            if (call.Variants is null) continue;
            foreach (var (command, variant) in call.Variants.OrderBy(v => v.Key))
                yield return ($"{call.Name} 0x{command:x}", command, variant, call.CommandArgument);
        }
    }

    [Fact]
    public void Names_and_numbers_agree_with_the_kernels_header()
    {
        foreach (var field in typeof(SyscallNumber).GetFields(BindingFlags.Public | BindingFlags.Static).Where(f => f.Name != nameof(SyscallNumber.Count)))
            Assert.Equal(field.Name, SyscallTable.Find((int)field.GetRawConstantValue()!)!.Name);

        const string Header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
        if (!File.Exists(Header)) return;
        foreach (Match match in Regex.Matches(File.ReadAllText(Header), @"#define __NR_(\w+)\s+(\d+)"))
            Assert.Equal(match.Groups[1].Value, SyscallTable.NameOf(int.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture)));
    }

    [Fact]
    public void Descriptions_are_well_formed()
    {
        foreach (var (name, _, call, _) in AllDescriptions())
        {
            Assert.True(call.Arguments.Length <= 6, name);
            Assert.True(call.NoSignalArgument < call.Arguments.Length, name);
            for (var i = 0; i < call.Arguments.Length; i++)
            {
                var argument = call.Arguments[i];
                var what = $"{name}, argument {i}";
                var memory = argument.Kind is ArgumentKind.In or ArgumentKind.Out or ArgumentKind.InOut;
                if (memory && argument.Length == LengthSource.Fixed)
                {
                    Assert.True(argument.Size > 0, what);
                    // A fixed output must not depend on the result.
                    Assert.Equal(CopyBack.Whole, argument.CopyBack);
                }
                if (memory && argument.Length is LengthSource.Argument or LengthSource.IntArgument)
                {
                    Assert.True(argument.Size > 0, what);
                    Assert.True(LengthArgument(call, argument, what).Kind == ArgumentKind.Value, what);
                }
                if (memory && argument.Length == LengthSource.Bits) Assert.Equal(ArgumentKind.Value, LengthArgument(call, argument, what).Kind);
                if (memory && argument.Length == LengthSource.Pointer)
                {
                    var length = LengthArgument(call, argument, what);
                    Assert.True(length is { Kind: ArgumentKind.InOut, Size: 4, Length: LengthSource.Fixed }, what);
                }
                if (argument.Kind is ArgumentKind.VectorIn or ArgumentKind.VectorOut or ArgumentKind.MessagesIn or ArgumentKind.MessagesOut or ArgumentKind.SignalMask)
                    Assert.Equal(ArgumentKind.Value, LengthArgument(call, argument, what).Kind);
                if (argument is { Kind: ArgumentKind.Path, Size: > 0 })
                    Assert.Contains(LengthArgument(call, argument, what).Format, new[] { ValueFormat.OpenFlags, ValueFormat.AtFlags });
                if (argument.Kind == ArgumentKind.Text) Assert.InRange(argument.Limit, 1, 4096);
                if (argument.Partial) Assert.True(argument.Length is LengthSource.Argument or LengthSource.IntArgument, what);
            }
        }

        static ArgumentDescription LengthArgument(SyscallDescription call, ArgumentDescription argument, string what)
        {
            Assert.True(argument.LengthArgument >= 0 && argument.LengthArgument < call.Arguments.Length, what);
            return call.Arguments[argument.LengthArgument];
        }
    }

    [Fact]
    public void Calls_that_write_behind_the_programs_back_are_refused()
    {
        foreach (var number in new[]
        {
            SyscallNumber.io_setup, SyscallNumber.io_submit, SyscallNumber.io_uring_setup, SyscallNumber.userfaultfd, SyscallNumber.vmsplice,
            SyscallNumber.process_vm_writev, SyscallNumber.process_vm_readv, SyscallNumber.ptrace, SyscallNumber.mq_notify, SyscallNumber.seccomp,
            SyscallNumber.perf_event_open, SyscallNumber.mbind, SyscallNumber.unshare, SyscallNumber.setns, SyscallNumber.bpf,
        })
            Assert.Equal(SyscallRoute.Unknown, SyscallTable.Find(number)!.Route);
        foreach (var number in new[] { SyscallNumber.rseq, SyscallNumber.clone3 })
            Assert.Equal((SyscallRoute.Constant, -Errno.ENOSYS), (SyscallTable.Find(number)!.Route, SyscallTable.Find(number)!.Constant));
    }

    /// <summary>What the hypervisor must register. A call that joins or leaves this list must be seen to do so.</summary>
    [Fact]
    public void Memory_processes_and_signals_never_reach_the_host_kernel()
    {
        foreach (var number in new[]
        {
            SyscallNumber.mmap, SyscallNumber.munmap, SyscallNumber.mremap, SyscallNumber.mprotect, SyscallNumber.madvise, SyscallNumber.brk, SyscallNumber.msync,
            SyscallNumber.mincore, SyscallNumber.mlock, SyscallNumber.clone, SyscallNumber.fork, SyscallNumber.vfork, SyscallNumber.execve, SyscallNumber.exit,
            SyscallNumber.exit_group, SyscallNumber.wait4, SyscallNumber.waitid, SyscallNumber.futex, SyscallNumber.arch_prctl, SyscallNumber.set_tid_address,
            SyscallNumber.getpid, SyscallNumber.setsid, SyscallNumber.kill, SyscallNumber.tgkill, SyscallNumber.rt_sigaction, SyscallNumber.rt_sigprocmask,
            SyscallNumber.rt_sigreturn, SyscallNumber.sigaltstack, SyscallNumber.setitimer, SyscallNumber.timer_create, SyscallNumber.pidfd_open,
            SyscallNumber.membarrier, SyscallNumber.shmat, SyscallNumber.signalfd4,
        })
            Assert.Equal(SyscallRoute.Handled, SyscallTable.Find(number)!.Route);
    }

    [CompilerFact]
    public void Sizes_agree_with_the_C_headers()
    {
        (string Type, string Constant)[] types =
        [
            ("struct stat", nameof(KernelStructSize.Stat)), ("struct statfs", nameof(KernelStructSize.Statfs)), ("struct statx", nameof(KernelStructSize.Statx)),
            ("struct timespec", nameof(KernelStructSize.Timespec)), ("struct timeval", nameof(KernelStructSize.Timeval)), ("struct timezone", nameof(KernelStructSize.Timezone)),
            ("struct itimerspec", nameof(KernelStructSize.Itimerspec)), ("struct timex", nameof(KernelStructSize.Timex)), ("struct tms", nameof(KernelStructSize.Tms)),
            ("struct utimbuf", nameof(KernelStructSize.Utimbuf)), ("struct rusage", nameof(KernelStructSize.Rusage)), ("struct rlimit", nameof(KernelStructSize.Rlimit)),
            ("struct sysinfo", nameof(KernelStructSize.Sysinfo)), ("struct utsname", nameof(KernelStructSize.Utsname)), ("struct iovec", nameof(KernelStructSize.Iovec)),
            ("struct msghdr", nameof(KernelStructSize.Msghdr)), ("struct mmsghdr", nameof(KernelStructSize.Mmsghdr)), ("struct cmsghdr", nameof(KernelStructSize.Cmsghdr)),
            ("struct sockaddr_storage", nameof(KernelStructSize.SockaddrStorage)), ("struct epoll_event", nameof(KernelStructSize.EpollEvent)),
            ("struct pollfd", nameof(KernelStructSize.Pollfd)), ("struct flock", nameof(KernelStructSize.Flock)), ("struct f_owner_ex", nameof(KernelStructSize.FOwnerEx)),
            ("struct open_how", nameof(KernelStructSize.OpenHow)), ("struct __user_cap_header_struct", nameof(KernelStructSize.CapHeader)),
            ("struct __user_cap_data_struct[2]", nameof(KernelStructSize.CapData)), ("struct sched_param", nameof(KernelStructSize.SchedParam)),
            ("struct mq_attr", nameof(KernelStructSize.MqAttr)), ("struct winsize", nameof(KernelStructSize.Winsize)), ("struct termio", nameof(KernelStructSize.Termio)),
            ("struct ifreq", nameof(KernelStructSize.Ifreq)), ("struct ifconf", nameof(KernelStructSize.Ifconf)), ("struct arpreq", nameof(KernelStructSize.Arpreq)),
        ];
        const string Headers = """
            #define _GNU_SOURCE
            #include <stdio.h>
            #include <sys/types.h>
            #include <sys/stat.h>
            #include <sys/statfs.h>
            #include <sys/time.h>
            #include <sys/timex.h>
            #include <sys/times.h>
            #include <utime.h>
            #include <sys/resource.h>
            #include <sys/sysinfo.h>
            #include <sys/utsname.h>
            #include <sys/uio.h>
            #include <sys/socket.h>
            #include <sys/epoll.h>
            #include <poll.h>
            #include <fcntl.h>
            #include <linux/openat2.h>
            #include <linux/capability.h>
            #include <sched.h>
            #include <time.h>
            #include <mqueue.h>
            #include <sys/ioctl.h>
            #include <net/if.h>
            #include <net/if_arp.h>
            """;
        var program = new StringBuilder(Headers).Append("\nint main(void) {\n");
        foreach (var (type, constant) in types) program.Append(CultureInfo.InvariantCulture, $"printf(\"{constant} %zu\\n\", sizeof({type}));\n");
        var sizes = CompilerFactAttribute.Run(program.Append("return 0; }\n").ToString());

        // The kernel's own termios differs from glibc's.
        var kernel = CompilerFactAttribute.Run("""
            #include <stdio.h>
            #include <asm/termbits.h>
            #include <linux/serial.h>
            #include <asm/ioctls.h>
            #include <linux/fs.h>
            #include <linux/sched/types.h>
            int main(void) {
                printf("Termios %zu\nTermios2 %zu\nSerialStruct %zu\nSchedAttr %zu\n", sizeof(struct termios), sizeof(struct termios2), sizeof(struct serial_struct),
                    sizeof(struct sched_attr) < 48 ? sizeof(struct sched_attr) : (size_t)48);
                printf("0x%lx\n", (unsigned long)TCGETS2);
                return 0;
            }
            """);
        Assert.Contains("0x802c542a", kernel);

        var known = (sizes + kernel).Split('\n').Select(l => l.Split(' ')).Where(p => p.Length == 2).ToDictionary(p => p[0], p => int.Parse(p[1], CultureInfo.InvariantCulture));
        foreach (var field in typeof(KernelStructSize).GetFields(BindingFlags.Public | BindingFlags.Static))
        {
            // cachestat is younger than many headers; the kernel's sigaction is in none of them.
            if (field.Name is nameof(KernelStructSize.Cachestat) or nameof(KernelStructSize.CachestatRange) or nameof(KernelStructSize.SigAction)) continue;
            Assert.True(known.TryGetValue(field.Name, out var size), field.Name);
            Assert.True(size == (int)field.GetRawConstantValue()!, $"{field.Name}: {size} in the headers");
        }
    }

    [CompilerFact]
    public void Ioctl_requests_agree_with_the_C_headers()
    {
        var names = TraceNames.IoctlRequests.Where(r => r.Name is not ("BLKGETSIZE64" or "SIOCOUTQNSD")).ToArray();
        var program = new StringBuilder("""
            #include <stdio.h>
            #include <stddef.h>
            #include <asm/termbits.h>
            #include <asm/ioctls.h>
            #include <asm/sockios.h>
            #include <linux/sockios.h>
            #include <linux/fs.h>
            int main(void) {

            """);
        foreach (var (_, name) in names) program.Append(CultureInfo.InvariantCulture, $"printf(\"{name} %u\\n\", (unsigned){name});\n");
        var values = CompilerFactAttribute.Run(program.Append("return 0; }\n").ToString()).Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(l => l.Split(' ')).ToDictionary(p => p[0], p => ulong.Parse(p[1], CultureInfo.InvariantCulture));
        foreach (var (value, name) in names) Assert.True(values[name] == value, $"{name} is 0x{values[name]:x}, not 0x{value:x}");
    }
}

/// <summary>A test that needs a C compiler; skipped where there is none.</summary>
internal sealed class CompilerFactAttribute : FactAttribute
{
    public CompilerFactAttribute()
    {
        if (!File.Exists("/usr/bin/cc")) Skip = "no C compiler at /usr/bin/cc";
    }

    internal static string Run(string source)
    {
        var directory = Directory.CreateTempSubdirectory("privy-c-");
        try
        {
            var file = Path.Combine(directory.FullName, "program.c");
            File.WriteAllText(file, source);
            Start("/usr/bin/cc", "-o", Path.Combine(directory.FullName, "program"), file);
            return Start(Path.Combine(directory.FullName, "program"));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static string Start(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var output = process.StandardOutput.ReadToEnd();
        var error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, error);
        return output;
    }
}
