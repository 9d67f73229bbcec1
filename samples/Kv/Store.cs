using System.Runtime.CompilerServices;
using Privy;

namespace Kv;

/// <summary>There is no room for another entry.</summary>
internal sealed class StoreFullException() : Exception("OOM the store is full; start it with more --memory");

/// <summary>
/// A hash table in a region. Nothing outside of the region belongs to it, and all references are offsets: so a snapshot is a whole table, a checkpoint of the region
/// is a checkpoint of the table, and restoring one is loading its bytes. Callers take turns (Server.cs): there is no lock in here.
/// </summary>
internal sealed unsafe class Store
{
    // The region: this header, then the buckets, then entries.
    private struct Header
    {
        internal ulong Magic;
        internal long Count;
        internal long Buckets;          // how many, a power of two
        internal long End;              // the first byte that was never used
        internal fixed long Free[32];   // lists of freed entries, by class: class c holds 1 << c bytes
    }

    private struct Entry
    {
        internal long Next;             // in its bucket, or in the free list
        internal uint Hash;
        internal int Class;
        internal int KeyLength;
        internal int ValueLength;       // the key's bytes follow, then the value's
    }

    private const ulong Magic = 0x3130564b59564950;
    private const int SmallestClass = 5;
    private const int LargestClass = 29;

    private readonly SnapshotRegion _region;
    private readonly byte* _memory;

    internal Store(SnapshotRegion region)
    {
        _region = region;
        _memory = region.Pointer;
        if (H->Magic == Magic)
            return;
        if (H->Magic != 0)
            throw new InvalidDataException("The checkpoint holds something else than a store.");
        Clear();
    }

    internal long Count => H->Count;

    internal long UsedBytes => H->End;

    private Header* H => (Header*)_memory;

    private long* Buckets => (long*)(_memory + SnapshotRegion.PageSize);

    internal void Clear()
    {
        // A bucket for each 128 bytes: untouched buckets take no memory.
        long buckets = 1;
        while (buckets * 2 * 128 <= _region.Length)
            buckets *= 2;
        for (long i = 0; i < H->Buckets; i++)
        {
            if (Buckets[i] != 0)
                Buckets[i] = 0;
        }
        for (int c = 0; c < 32; c++)
            H->Free[c] = 0;
        H->Count = 0;
        H->Buckets = buckets;
        H->End = SnapshotRegion.PageSize + buckets * sizeof(long);
        H->Magic = Magic;
    }

    /// <summary>The value of a key. It is the region's memory: to be used before anything changes.</summary>
    internal bool TryGet(ReadOnlySpan<byte> key, out ReadOnlySpan<byte> value)
    {
        long offset = *Find(key, Hash(key));
        value = offset == 0 ? default : Value(At(offset));
        return offset != 0;
    }

    internal void Set(ReadOnlySpan<byte> key, ReadOnlySpan<byte> value)
    {
        uint hash = Hash(key);
        long* link = Find(key, hash);
        int needed = Class((long)sizeof(Entry) + key.Length + value.Length);
        if (*link != 0 && At(*link)->Class == needed)
        {
            Entry* same = At(*link);
            same->ValueLength = value.Length;
            value.CopyTo(Value(same));
            return;
        }
        // First the new entry, then the change: if there is no room the store is as it was.
        long offset = Allocate(needed);
        Entry* entry = At(offset);
        entry->Hash = hash;
        entry->Class = needed;
        entry->KeyLength = key.Length;
        entry->ValueLength = value.Length;
        key.CopyTo(Key(entry));
        value.CopyTo(Value(entry));
        long old = *link;
        entry->Next = old == 0 ? 0 : At(old)->Next;
        *link = offset;
        if (old == 0)
            H->Count++;
        else
            Release(old);
    }

    internal bool Remove(ReadOnlySpan<byte> key)
    {
        long* link = Find(key, Hash(key));
        if (*link == 0)
            return false;
        long old = *link;
        *link = At(old)->Next;
        Release(old);
        H->Count--;
        return true;
    }

    /// <summary>The word that refers to the key's entry, or, if there is none, the word that would.</summary>
    private long* Find(ReadOnlySpan<byte> key, uint hash)
    {
        long* link = Buckets + (hash & (H->Buckets - 1));
        while (*link != 0)
        {
            Entry* entry = At(*link);
            if (entry->Hash == hash && Key(entry).SequenceEqual(key))
                break;
            link = &entry->Next;
        }
        return link;
    }

    private long Allocate(int c)
    {
        long offset = H->Free[c];
        if (offset != 0)
        {
            H->Free[c] = At(offset)->Next;
            return offset;
        }
        if (c > LargestClass || H->End > _region.Length - (1L << c))
            throw new StoreFullException();
        offset = H->End;
        H->End += 1L << c;
        return offset;
    }

    private void Release(long offset)
    {
        Entry* entry = At(offset);
        entry->Next = H->Free[entry->Class];
        H->Free[entry->Class] = offset;
    }

    private static int Class(long bytes)
    {
        int c = SmallestClass;
        while (1L << c < bytes)
            c++;
        return c;
    }

    private Entry* At(long offset) => (Entry*)(_memory + offset);

    private static Span<byte> Key(Entry* entry) => new(entry + 1, entry->KeyLength);

    private static Span<byte> Value(Entry* entry) => new((byte*)(entry + 1) + entry->KeyLength, entry->ValueLength);

    /// <summary>FNV-1a, finished so that low bits depend on all. It must be the same in the next process: the table outlives this one.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static uint Hash(ReadOnlySpan<byte> key)
    {
        uint hash = 2166136261;
        foreach (byte b in key)
            hash = (hash ^ b) * 16777619;
        hash ^= hash >> 15;
        hash *= 0x2c1b3c6d;
        return hash ^ hash >> 13;
    }
}
