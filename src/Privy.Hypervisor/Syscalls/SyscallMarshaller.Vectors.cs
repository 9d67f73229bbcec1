using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Syscalls;

internal static unsafe partial class SyscallMarshaller
{
    /// <summary>struct iovec.</summary>
    internal struct Vector
    {
        public ulong Base;
        public ulong Length;
    }

    private struct VectorStage
    {
        /// <summary>Vectors over staging memory, for the kernel.</summary>
        public Vector* Native;

        /// <summary>The program's vectors.</summary>
        public Vector* Guest;
        public int Count;
        public bool Output;
    }

    /// <summary>Main: reads the vectors into the arena and makes their buffers safe to write.</summary>
    private static long PrepareVectors(ISyscallContext context, ulong address, ulong count, out Vector* vectors)
    {
        vectors = null;
        var error = ReadVectors(context, address, count, out vectors);
        if (error < 0) return error;
        long total = 0;
        for (var i = 0; i < (int)count; i++)
        {
            if ((long)vectors[i].Length < 0) return -Errno.EINVAL;
            if (vectors[i].Length == 0) continue;
            // The kernel cuts the sum at MaxTransfer; what lies beyond is never written.
            var length = Math.Min((long)vectors[i].Length, ArgumentDescription.MaxTransfer - total);
            if (length == 0) break;
            if (!Prepare(context, vectors[i].Base, (ulong)length)) return -Errno.EFAULT;
            total += length;
        }
        return 0;
    }

    private static bool GivesView(ISyscallContext context, ulong address, ulong count)
    {
        var found = false;
        var error = ReadVectors(context, address, count, out var vectors);
        for (var i = 0; error == 0 && i < (int)count; i++) found |= context.IsView(vectors[i].Base);
        context.Arena.Reset();
        return found;
    }

    /// <summary>Main: reads the vectors into the arena and keeps the kernel from reading what is not the program's.</summary>
    private static long TakeVectors(ISyscallContext context, ulong address, ulong count, out Vector* vectors)
    {
        var error = ReadVectors(context, address, count, out vectors);
        if (error < 0) return error;
        KeepReachable(context, vectors, (int)count);
        return 0;
    }

    private static void KeepReachable(ISyscallContext context, Vector* vectors, int count)
    {
        for (var i = 0; i < count; i++) vectors[i].Base = Reachable(context, vectors[i].Base);
    }

    /// <summary>A snapshot: vectors over staging memory, filled when the kernel is to read them.</summary>
    private static long StageVectors(ISyscallContext context, ulong address, ulong count, bool input, out VectorStage stage)
    {
        stage = default;
        var error = ReadVectors(context, address, count, out var guest);
        if (error < 0) return error;
        return StageVectors(context, guest, (int)count, input, out stage);
    }

    private static long StageVectors(ISyscallContext context, Vector* guest, int count, bool input, out VectorStage stage)
    {
        stage = default;
        long total = 0;
        for (var i = 0; i < count; i++)
        {
            if ((long)guest[i].Length < 0) return -Errno.EINVAL;
            guest[i].Length = (ulong)Math.Min((long)guest[i].Length, MaxStaged - total);
            total += (long)guest[i].Length;
        }
        var native = (Vector*)context.Arena.Allocate((long)count * sizeof(Vector));
        for (var i = 0; i < count; i++)
        {
            var length = guest[i].Length;
            var buffer = context.Arena.Allocate((long)length, AlignmentOf(guest[i].Base));
            native[i].Base = (ulong)buffer;
            native[i].Length = length;
            if (input && length != 0 && !context.TryRead(guest[i].Base, new Span<byte>(buffer, (int)length))) return -Errno.EFAULT;
        }
        stage.Native = native;
        stage.Guest = guest;
        stage.Count = count;
        stage.Output = !input;
        return 0;
    }

    private static bool CopyVectorsBack(ISyscallContext context, in VectorStage stage, long result)
    {
        for (var i = 0; i < stage.Count && result > 0; i++)
        {
            var length = Math.Min((long)stage.Native[i].Length, result);
            if (length == 0) continue;
            if (!context.TryWrite(stage.Guest[i].Base, new ReadOnlySpan<byte>((void*)stage.Native[i].Base, (int)length))) return false;
            result -= length;
        }
        return true;
    }

    private static long ReadVectors(ISyscallContext context, ulong address, ulong count, out Vector* vectors)
    {
        vectors = null;
        if (count > MaxVectors) return -Errno.EINVAL;
        var length = (int)count * sizeof(Vector);
        vectors = (Vector*)context.Arena.Allocate(length);
        return length == 0 || context.TryRead(address, new Span<byte>(vectors, length)) ? 0 : -Errno.EFAULT;
    }
}
