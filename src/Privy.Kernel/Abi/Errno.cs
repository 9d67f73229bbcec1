namespace Privy.Kernel;

/// <summary>The Linux error numbers the kernel returns (negated).</summary>
public static class Errno
{
    /// <summary>All spaces are in use.</summary>
    public const long Again = 11;

    /// <summary>No frame or table left.</summary>
    public const long NoMemory = 12;

    /// <summary>Bad address.</summary>
    public const long Fault = 14;

    /// <summary>The space is still loaded.</summary>
    public const long Busy = 16;

    /// <summary>Bad argument.</summary>
    public const long Invalid = 22;
}
