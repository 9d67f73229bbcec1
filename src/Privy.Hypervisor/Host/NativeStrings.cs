using System.Runtime.InteropServices;

namespace Privy.Hypervisor.Host;

/// <summary>A null-terminated array of C strings, as <c>execve</c> takes it. Bytes, not text: Linux does not say what they mean.</summary>
internal unsafe ref struct NativeStrings
{
    private byte** _array;

    internal NativeStrings(IReadOnlyList<byte[]> strings)
    {
        nuint length = (nuint)(strings.Count + 1) * 8;
        foreach (byte[] text in strings)
            length += (nuint)text.Length + 1;
        _array = (byte**)NativeMemory.AllocZeroed(length);
        byte* next = (byte*)(_array + strings.Count + 1);
        for (int i = 0; i < strings.Count; i++)
        {
            strings[i].CopyTo(new Span<byte>(next, strings[i].Length));
            _array[i] = next;
            next += strings[i].Length + 1;
        }
    }

    internal readonly byte** Array => _array;

    public void Dispose()
    {
        NativeMemory.Free(_array);
        _array = null;
    }
}
