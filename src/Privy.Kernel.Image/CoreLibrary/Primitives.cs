// The types the C# compiler and ilc cannot do without. Names and namespaces are fixed by them.
#pragma warning disable CS0169 // fields that give primitives their layout

namespace System;

public class Object
{
#pragma warning disable CS0649 // the method table pointer, set by nobody: there are no objects
    private unsafe void* m_pEEType;
#pragma warning restore CS0649

    public Object() { }
    ~Object() { }
    public virtual bool Equals(object other) => false;
    public virtual int GetHashCode() => 0;
}

public abstract class ValueType { }
public abstract class Enum : ValueType { }
public struct Void { }
public struct Boolean { private bool m_value; }
public struct Char { private char m_value; }
public struct SByte { private sbyte m_value; }
public struct Byte { private byte m_value; }
public struct Int16 { private short m_value; }
public struct UInt16 { private ushort m_value; }
public struct Int32 { private int m_value; }
public struct UInt32 { private uint m_value; }
public struct Int64 { private long m_value; }
public struct UInt64 { private ulong m_value; }
public struct IntPtr { private unsafe void* m_value; }
public struct UIntPtr { private unsafe void* m_value; }
public struct Single { private float m_value; }
public struct Double { private double m_value; }
public abstract class Array { private int m_length; }
public class Array<T> : Array { }
public sealed class String { public readonly int Length; private char m_first; }
public abstract class Delegate { }
public abstract class MulticastDelegate : Delegate { }
public class Exception { }
public abstract class Type { }
public struct RuntimeTypeHandle { }
public struct RuntimeMethodHandle { }
public struct RuntimeFieldHandle { }
public struct Nullable<T> where T : struct { }
