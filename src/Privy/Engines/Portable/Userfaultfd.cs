using System.Runtime.InteropServices;

namespace Privy.Engines.Portable;

/// <summary>The kernel's user-mode page faults, as far as the portable engine needs them (ioctl_userfaultfd(2)).</summary>
internal static unsafe class Userfaultfd
{
    internal const long Close = 3;

    private const long UserfaultfdCall = 323;
    private const long Ioctl = 16;
    private const long CloseOnExec = 0x80000;
    private const long NonBlocking = 0x800;
    private const long UserModeOnly = 1;

    private const long ApiIoctl = 0xc018aa3f;
    private const long RegisterIoctl = 0xc020aa00;
    private const ulong Api = 0xaa;
    private const ulong PageFaultFlagWriteProtect = 1 << 0;
    private const ulong WriteProtectSharedMemory = 1 << 12;
    private const ulong RegisterWriteProtect = 1 << 1;

    private const int NotPermitted = 1;
    private const int NotImplemented = 38;

    private static readonly Lazy<string?> Reason = new(Probe);

    /// <summary>Why it cannot be used here, or null.</summary>
    internal static string? WhyNot => Reason.Value;

    /// <summary>Does it answer only faults of user mode? Then system calls fail (EFAULT) where they write to a protected page.</summary>
    internal static bool UserModeFaultsOnly { get; private set; }

    /// <summary>Opens one.</summary>
    /// <returns>A descriptor or a negative errno.</returns>
    internal static int Open()
    {
        long descriptor = ResidentCode.Call(UserfaultfdCall, CloseOnExec | NonBlocking);
        if (descriptor == -NotPermitted)
        {
            // What the kernel offers without rights.
            descriptor = ResidentCode.Call(UserfaultfdCall, CloseOnExec | NonBlocking | UserModeOnly);
            UserModeFaultsOnly = true;
        }
        if (descriptor < 0)
            return (int)descriptor;
        ApiArgument api;
        api.Api = Api;
        api.Features = PageFaultFlagWriteProtect | WriteProtectSharedMemory;
        long result = ResidentCode.Call(Ioctl, descriptor, ApiIoctl, (long)&api);
        if (result == 0)
            return (int)descriptor;
        _ = ResidentCode.Call(Close, descriptor);
        return (int)result;
    }

    /// <summary>Asks for the write faults of a range.</summary>
    /// <returns>0 or a negative errno.</returns>
    internal static long Register(int descriptor, byte* address, long length)
    {
        RegisterArgument argument;
        argument.Start = (ulong)address;
        argument.Length = (ulong)length;
        argument.Mode = RegisterWriteProtect;
        return ResidentCode.Call(Ioctl, descriptor, RegisterIoctl, (long)&argument);
    }

    private static string? Probe()
    {
        if (!OperatingSystem.IsLinux() || RuntimeInformation.ProcessArchitecture != Architecture.X64)
            return "The portable engine needs Linux on x86-64.";
        int descriptor = Open();
        if (descriptor >= 0)
        {
            _ = ResidentCode.Call(Close, descriptor);
            return null;
        }
        return -descriptor switch
        {
            NotPermitted => "The portable engine needs userfaultfd, which is forbidden here; in a container, allow it in the seccomp profile.",
            NotImplemented => "The portable engine needs userfaultfd, which this kernel does not have.",
            _ => $"The portable engine needs a userfaultfd that can write-protect shared memory (Linux 5.19 or newer): {NativeMethods.Error(-descriptor)}.",
        };
    }

    private struct ApiArgument
    {
        internal ulong Api;
        internal ulong Features;
        internal ulong Ioctls;
    }

    private struct RegisterArgument
    {
        internal ulong Start;
        internal ulong Length;
        internal ulong Mode;
        internal ulong Ioctls;
    }
}
