using System.Runtime.CompilerServices;

namespace System.Threading;

// The bodies are never compiled: the attribute makes the compiler expand each call to one instruction. Where it did not,
// they would become endless loops; the image check refuses an object that holds one of them.

internal static class Interlocked
{
    [Intrinsic]
    public static int Exchange(ref int location, int value) => Exchange(ref location, value);

    [Intrinsic]
    public static long Exchange(ref long location, long value) => Exchange(ref location, value);

    [Intrinsic]
    public static int CompareExchange(ref int location, int value, int comparand) =>
        CompareExchange(ref location, value, comparand);

    [Intrinsic]
    public static long CompareExchange(ref long location, long value, long comparand) =>
        CompareExchange(ref location, value, comparand);
}

internal static class Volatile
{
    [Intrinsic]
    public static int Read(ref int location) => Read(ref location);

    [Intrinsic]
    public static ulong Read(ref ulong location) => Read(ref location);

    [Intrinsic]
    public static void Write(ref int location, int value) => Write(ref location, value);

    [Intrinsic]
    public static void Write(ref ulong location, ulong value) => Write(ref location, value);
}
