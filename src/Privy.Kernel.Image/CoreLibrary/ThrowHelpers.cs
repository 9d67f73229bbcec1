namespace Internal.Runtime.CompilerHelpers;

/// <summary>Where ilc sends what would be an exception. The kernel's code gives it no occasion; the image check looks for calls.</summary>
internal static class ThrowHelpers
{
    private static void ThrowInvalidProgramException(int id) { for (; ; ) { } }
    private static void ThrowInvalidProgramExceptionWithArgument(int id, string name) { for (; ; ) { } }
    private static void ThrowOverflowException() { for (; ; ) { } }
    private static void ThrowIndexOutOfRangeException() { for (; ; ) { } }
    private static void ThrowNullReferenceException() { for (; ; ) { } }
    private static void ThrowDivideByZeroException() { for (; ; ) { } }
    private static void ThrowTypeLoadException(int id, string type, string assembly) { for (; ; ) { } }
}
