namespace Privy.Kvm;

/// <summary>Reasons for which KVM_RUN returns (linux/kvm.h).</summary>
public static class KvmExit
{
    public const uint Io = 2;
    public const uint Hlt = 5;
    public const uint Mmio = 6;
    public const uint Shutdown = 8;
    public const uint FailEntry = 9;
    public const uint Interrupted = 10;
    public const uint InternalError = 17;

    /// <summary>Name of a reason for diagnostics.</summary>
    public static string Name(uint reason) => reason switch
    {
        Io => "port I/O",
        Hlt => "hlt",
        Mmio => "MMIO",
        Shutdown => "shutdown (triple fault)",
        FailEntry => "failed entry",
        Interrupted => "interrupted",
        InternalError => "internal error",
        _ => $"exit {reason}",
    };
}

/// <summary>Optional parts of KVM (KVM_CHECK_EXTENSION).</summary>
public enum KvmCapability
{
    UserMemory = 3,
    NrVcpus = 9,
    NrMemslots = 10,
    SyncMmu = 16,
    Xsave = 55,
    Xcrs = 56,
    MaxVcpus = 66,
    TscControl = 60,
    ReadonlyMemory = 81,
    SyncRegs = 74,
    ImmediateExit = 136,
}

/// <summary>Register sets shared through the run page.</summary>
[Flags]
public enum SyncSets : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>General registers.</summary>
    Registers = 1,

    /// <summary>Segment and control registers.</summary>
    SystemRegisters = 2,

    /// <summary>Pending exceptions.</summary>
    Events = 4,
}

internal static class KvmIoctl
{
    internal const ulong GetApiVersion = 0xAE00;
    internal const ulong CreateVm = 0xAE01;
    internal const ulong CheckExtension = 0xAE03;
    internal const ulong GetVcpuMmapSize = 0xAE04;
    internal const ulong GetSupportedCpuid = 0xC008AE05;
    internal const ulong CreateVcpu = 0xAE41;
    internal const ulong SetUserMemoryRegion = 0x4020AE46;
    internal const ulong SetTssAddress = 0xAE47;
    internal const ulong SetIdentityMapAddress = 0x4008AE48;
    internal const ulong Run = 0xAE80;
    internal const ulong GetTscKilohertz = 0xAEA3;
    internal const ulong GetRegisters = 0x8090AE81;
    internal const ulong SetRegisters = 0x4090AE82;
    internal const ulong GetSystemRegisters = 0x8138AE83;
    internal const ulong SetSystemRegisters = 0x4138AE84;
    internal const ulong SetMsrs = 0x4008AE89;
    internal const ulong SetCpuid2 = 0x4008AE90;
    internal const ulong GetEvents = 0x8040AE9F;
    internal const ulong SetEvents = 0x4040AEA0;
    internal const ulong GetXsave = 0x9000AEA4;
    internal const ulong SetXsave = 0x5000AEA5;
    internal const ulong SetXcrs = 0x4188AEA7;
    internal const ulong SetDeviceAttribute = 0x4018AEE1;
}
