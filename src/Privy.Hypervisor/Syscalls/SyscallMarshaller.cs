using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Syscalls;

/// <summary>
/// Carries out a described system call on the host kernel, for both kinds of process.
/// <para>Main: outputs are made safe, then the kernel gets the program's own pointers.</para>
/// <para>A snapshot: inputs are copied to staging memory, the kernel works there, outputs are copied back as far as it wrote them.</para>
/// Arrays that hold pointers (iovec, msghdr) are read once and the kernel gets that copy in both cases: were it to read
/// the program's array again, another thread could have pointed it at memory that was not made safe.
/// </summary>
internal static unsafe partial class SyscallMarshaller
{
    /// <summary>Most vectors a call takes (UIO_MAXIOV in include/uapi/linux/uio.h).</summary>
    internal const int MaxVectors = 1024;

    /// <summary>Most bytes staged for data in one call; what is beyond is left to the program's next call.</summary>
    internal const long MaxStaged = 64L << 20;

    /// <summary>An address with nothing behind it.</summary>
    internal const ulong Nowhere = 0x1000;

    private const ulong NoSignal = 0x4000; // MSG_NOSIGNAL

    /// <summary>Result as from the kernel, but with the ERESTART codes of <see cref="Errno"/> in place of EINTR where a call can be made again.</summary>
    internal static long Execute(ISyscallContext context, SyscallDescription call, in SyscallArguments arguments)
    {
        var result = context.Translates ? Translated(context, call, in arguments) : Direct(context, call, in arguments);
        // What lies in a view is staged, as all is that a snapshot gives to the kernel. The kernel has done nothing yet, or would have returned what it did.
        if (result == -Errno.EFAULT && !context.Translates && GivesView(context, call, in arguments)) result = Translated(context, call, in arguments);
        return (ulong)result >= unchecked((ulong)-4095L) ? Failed(context, call, in arguments, result) : result;
    }

    /// <summary>Whether the kernel was to read from a view of a snapshot.</summary>
    private static bool GivesView(ISyscallContext context, SyscallDescription call, in SyscallArguments arguments)
    {
        foreach (var i in call.ActiveArguments)
        {
            switch (call.Arguments[i].Kind)
            {
                case ArgumentKind.In when context.IsView(arguments[i]):
                    return true;
                case ArgumentKind.VectorIn when GivesView(context, arguments[i], arguments[call.Arguments[i].LengthArgument]):
                    return true;
            }
        }

        return false;
    }

    private static long Failed(ISyscallContext context, SyscallDescription call, in SyscallArguments arguments, long result)
    {
        switch (-result)
        {
            case Errno.EPIPE when call.RaisesSigpipe:
                if (call.NoSignalArgument < 0 || (arguments[call.NoSignalArgument] & NoSignal) == 0) context.RaiseSigpipe();
                return result;
            case Errno.EINTR:
                return -call.InterruptedErrno;
            default:
                return result;
        }
    }

    /// <summary>Main: the kernel gets the program's pointers.</summary>
    private static long Direct(ISyscallContext context, SyscallDescription call, in SyscallArguments arguments)
    {
        Registers native = default;
        native[0] = arguments.A0;
        native[1] = arguments.A1;
        native[2] = arguments.A2;
        native[3] = arguments.A3;
        native[4] = arguments.A4;
        native[5] = arguments.A5;
        var outputs = false;
        var arena = false;
        var masked = false;
        MessageBatch messages = default;
        try
        {
            foreach (var i in call.ActiveArguments)
            {
                ref readonly var description = ref call.Arguments[i];
                var value = native[i];
                switch (description.Kind)
                {
                    case ArgumentKind.Descriptor:
                        if (context.IsReservedDescriptor((int)value)) return -Errno.EBADF;
                        break;

                    case ArgumentKind.Out or ArgumentKind.InOut:
                        if (value == 0) break;
                        var length = LengthOf(context, in description, in arguments, value);
                        if (length < 0) return length;
                        if (length == 0) break;
                        outputs = true;
                        if (Prepare(context, value, (ulong)length)) break;
                        // The kernel fills what there is of a buffer that runs past its mapping.
                        var room = description is { Partial: true, Size: 1, Length: LengthSource.Argument } ? PrepareStart(context, value, arguments[description.LengthArgument]) : 0;
                        if (room == 0) return -Errno.EFAULT;
                        native[description.LengthArgument] = room;
                        break;

                    case ArgumentKind.In or ArgumentKind.Text:
                        native[i] = Reachable(context, value);
                        break;

                    case ArgumentKind.VectorIn:
                        arena = true;
                        var error = TakeVectors(context, value, arguments[description.LengthArgument], out var inputs);
                        if (error < 0) return error;
                        native[i] = (ulong)inputs;
                        break;

                    case ArgumentKind.Path:
                        if (value == 0) break;
                        if (!context.IsReachable(value))
                        {
                            native[i] = Nowhere;
                            break;
                        }

                        error = SyscallPaths.Replace(context, in description, in arguments, value, out var replaced);
                        if (error < 0) return error;
                        if (replaced == 0) break;
                        arena = true;
                        native[i] = replaced;
                        break;

                    case ArgumentKind.VectorOut:
                        arena = outputs = true;
                        error = PrepareVectors(context, value, arguments[description.LengthArgument], out var vectors);
                        if (error < 0) return error;
                        native[i] = (ulong)vectors;
                        break;

                    case ArgumentKind.MessageIn or ArgumentKind.MessageOut or ArgumentKind.MessagesIn or ArgumentKind.MessagesOut:
                        arena = outputs = true;
                        error = StageMessages(context, in description, in arguments, value, ref messages);
                        if (error < 0) return error;
                        native[i] = (ulong)messages.Headers;
                        break;

                    case ArgumentKind.SignalMask or ArgumentKind.SignalMaskPair:
                        error = ApplySignalMask(context, in description, in arguments, value, ref masked);
                        if (error < 0) return error;
                        native[i] = 0;
                        break;
                }
            }

            var result = context.HostCall(call.Number, native[0], native[1], native[2], native[3], native[4], native[5]);
            if (messages.Count > 0 && result >= 0)
            {
                var error = DeliverMessages(context, in messages, result, copyData: false);
                if (error < 0) return error;
            }
            return masked ? Masked(result) : result;
        }
        finally
        {
            if (outputs) context.EndOutputs();
            if (arena) context.Arena.Reset();
        }
    }

    /// <summary>A snapshot: the kernel gets staging memory.</summary>
    private static long Translated(ISyscallContext context, SyscallDescription call, in SyscallArguments arguments)
    {
        Registers native = default;
        native[0] = arguments.A0;
        native[1] = arguments.A1;
        native[2] = arguments.A2;
        native[3] = arguments.A3;
        native[4] = arguments.A4;
        native[5] = arguments.A5;
        Lengths staged = default;
        var masked = false;
        MessageBatch messages = default;
        VectorStage vectors = default;
        var arena = context.Arena;
        try
        {
            foreach (var i in call.ActiveArguments)
            {
                ref readonly var description = ref call.Arguments[i];
                var value = arguments[i];
                long error;
                switch (description.Kind)
                {
                    case ArgumentKind.Descriptor:
                        if (context.IsReservedDescriptor((int)value)) return -Errno.EBADF;
                        break;

                    case ArgumentKind.In or ArgumentKind.Out or ArgumentKind.InOut:
                        if (value == 0) break;
                        var length = LengthOf(context, in description, in arguments, value);
                        if (length < 0) return length;
                        if (length > MaxStaged)
                        {
                            if (!description.Partial) return -Errno.EINVAL;
                            length = MaxStaged / description.Size * description.Size;
                            native[description.LengthArgument] = (ulong)(length / description.Size);
                        }
                        else if (length == description.Limit && description.Length is (LengthSource.Argument or LengthSource.IntArgument))
                        {
                            // Perhaps cut to the limit: then the kernel must not be told of more room than is staged.
                            native[description.LengthArgument] = (ulong)(length / description.Size);
                        }
                        var buffer = arena.Allocate(length, AlignmentOf(value));
                        if (description.Kind == ArgumentKind.Out)
                        {
                            // The kernel may leave parts of a struct untouched: they must come back as they were. Of room for data the first
                            // byte tells a bad pointer before the call has consumed anything.
                            var known = description.CopyBack == CopyBack.Whole && description.Length != LengthSource.Pointer ? length : Math.Min(length, 1);
                            if (!context.TryRead(value, new Span<byte>(buffer, (int)known))) return -Errno.EFAULT;
                        }
                        else if (!context.TryRead(value, new Span<byte>(buffer, (int)length))) return -Errno.EFAULT;
                        native[i] = (ulong)buffer;
                        staged[i] = length;
                        break;

                    case ArgumentKind.Path:
                        if (value == 0) break;
                        error = SyscallPaths.Stage(context, in description, in arguments, value, out var path);
                        if (error < 0) return error;
                        native[i] = path;
                        break;

                    case ArgumentKind.Text:
                        if (value == 0) break;
                        error = SyscallPaths.StageText(context, value, (int)description.Limit, out var text);
                        if (error < 0) return error;
                        native[i] = text;
                        break;

                    case ArgumentKind.VectorIn or ArgumentKind.VectorOut:
                        error = StageVectors(context, value, arguments[description.LengthArgument], description.Kind == ArgumentKind.VectorIn, out vectors);
                        if (error < 0) return error;
                        native[i] = (ulong)vectors.Native;
                        break;

                    case ArgumentKind.MessageIn or ArgumentKind.MessageOut or ArgumentKind.MessagesIn or ArgumentKind.MessagesOut:
                        error = StageMessages(context, in description, in arguments, value, ref messages);
                        if (error < 0) return error;
                        native[i] = (ulong)messages.Headers;
                        break;

                    case ArgumentKind.SignalMask or ArgumentKind.SignalMaskPair:
                        error = ApplySignalMask(context, in description, in arguments, value, ref masked);
                        if (error < 0) return error;
                        native[i] = 0;
                        break;
                }
            }

            // The kernel must not be told of more room than is staged.
            foreach (var i in call.ActiveArguments)
            {
                ref readonly var description = ref call.Arguments[i];
                if (description.Length != LengthSource.Pointer || staged[i] == 0 || staged[description.LengthArgument] == 0) continue;
                var room = (int*)native[description.LengthArgument];
                if (*room > staged[i]) *room = (int)staged[i];
            }

            var result = context.HostCall(call.Number, native[0], native[1], native[2], native[3], native[4], native[5]);
            if (masked) result = Masked(result);
            if (result < 0 && result != -Errno.EINTR) return result;

            foreach (var i in call.ActiveArguments)
            {
                ref readonly var description = ref call.Arguments[i];
                if (description.Kind is not (ArgumentKind.Out or ArgumentKind.InOut) || staged[i] == 0) continue;
                if (result < 0 && !description.OnInterrupt) continue;
                var length = staged[i];
                if (description.Length == LengthSource.Pointer)
                {
                    var written = native[description.LengthArgument] == 0 ? 0 : *(int*)native[description.LengthArgument];
                    length = Math.Min(length, written);
                }
                else
                {
                    length = description.CopyBack switch
                    {
                        CopyBack.Result => Math.Min(length, result),
                        CopyBack.ResultElements => Math.Min(length, result * description.Size),
                        _ => length,
                    };
                }
                if (length > 0 && !context.TryWrite(arguments[i], new ReadOnlySpan<byte>((void*)native[i], (int)length)))
                    return Undeliverable(context, call, in native, result);
            }
            if (result < 0) return result;

            if (vectors.Output && !CopyVectorsBack(context, in vectors, result)) return -Errno.EFAULT;
            if (messages.Count > 0)
            {
                var error = DeliverMessages(context, in messages, result, copyData: true);
                if (error < 0) return error;
            }
            return result;
        }
        finally
        {
            arena.Reset();
        }
    }

    /// <summary>
    /// A call that waited under a signal mask of its own exists to be interrupted by the signals this mask lets through: when one was
    /// pending before it began, it must report so (the program tests a flag that the handler sets) instead of being made again.
    /// </summary>
    private static long Masked(long result) => result == -Errno.ERESTARTNOINTR ? -Errno.EINTR : result;

    /// <summary>New descriptors whose numbers cannot be told to the program are closed, as in the kernel.</summary>
    private static long Undeliverable(ISyscallContext context, SyscallDescription call, in Registers native, long result)
    {
        if (!call.CreatesDescriptors) return -Errno.EFAULT;
        if (call.Arguments[^1].Memory == MemoryFormat.IntPair || call.Arguments[0].Memory == MemoryFormat.IntPair)
        {
            var pair = (int*)(call.Arguments[0].Memory == MemoryFormat.IntPair ? native[0] : native[call.Arguments.Length - 1]);
            context.HostCall(SyscallNumber.close, (ulong)pair[0]);
            context.HostCall(SyscallNumber.close, (ulong)pair[1]);
        }
        else
        {
            context.HostCall(SyscallNumber.close, (ulong)result);
        }
        return -Errno.EFAULT;
    }

    /// <summary>Length in bytes of the memory an argument points to, 0 when the kernel will refuse it; negative errno.</summary>
    internal static long LengthOf(ISyscallContext context, in ArgumentDescription description, in SyscallArguments arguments, ulong address)
    {
        long length;
        int count;
        switch (description.Length)
        {
            case LengthSource.Fixed:
                return description.Size;

            case LengthSource.Argument:
                // Lengths above MaxTransfer are cut by the kernel where they are data and refused where they are not.
                length = (long)Math.Min(arguments[description.LengthArgument], (ulong)ArgumentDescription.MaxTransfer) * description.Size;
                break;

            case LengthSource.IntArgument:
                count = (int)arguments[description.LengthArgument];
                length = count <= 0 ? 0 : (long)count * description.Size;
                break;

            case LengthSource.Bits:
                count = (int)arguments[description.LengthArgument];
                length = count <= 0 ? 0 : ((long)count + 63) / 64 * 8;
                break;

            case LengthSource.Pointer:
                var pointer = arguments[description.LengthArgument];
                if (pointer == 0) return 0;
                count = 0;
                if (!context.TryRead(pointer, MemoryMarshal.AsBytes(new Span<int>(ref count)))) return -Errno.EFAULT;
                length = Math.Max(count, 0);
                break;

            default:
                uint word = 0;
                if (!context.TryRead(address, MemoryMarshal.AsBytes(new Span<uint>(ref word)))) return -Errno.EFAULT;
                length = Math.Max(word, description.Size);
                break;
        }
        if (length <= description.Limit) return length;
        return description.Kind == ArgumentKind.In && !description.Partial ? -Errno.EINVAL : description.Limit;
    }

    /// <summary>Files opened with O_DIRECT want buffers aligned as blocks are: as good as the program's own, up to a page.</summary>
    private static int AlignmentOf(ulong address) => (address & 511) == 0 ? 4096 : 16;

    /// <summary>
    /// A pointer to what the kernel is to read. In place of one that is not the program's, one that is nobody's (vm.mmap_min_addr keeps it free): so the
    /// kernel itself says EFAULT, where it would and no sooner.
    /// </summary>
    private static ulong Reachable(ISyscallContext context, ulong address) => address == 0 || context.IsReachable(address) ? address : Nowhere;

    /// <summary>Refuses ranges that wrap around; the context need not.</summary>
    private static bool Prepare(ISyscallContext context, ulong address, ulong length) =>
        address + length >= address && context.PrepareOutput(address, length);

    /// <summary>Prepares as many pages of a range as can be written from its beginning; returns their bytes.</summary>
    private static ulong PrepareStart(ISyscallContext context, ulong address, ulong length)
    {
        const ulong Page = 4096, UserEnd = 0x7FFF_FFFF_F000;
        if (address >= UserEnd || length > UserEnd - address) return 0;
        var first = Page - (address & (Page - 1));
        if (first >= length || !context.PrepareOutput(address, first)) return 0;
        ulong good = 0, bad = (length - first + Page - 1) / Page;
        while (bad - good > 1)
        {
            var middle = good + (bad - good) / 2;
            if (context.PrepareOutput(address, first + middle * Page)) good = middle;
            else bad = middle;
        }
        return first + good * Page;
    }

    /// <summary>The host thread's own mask belongs to the hypervisor: the program's is emulated, so the kernel gets none.</summary>
    private static long ApplySignalMask(ISyscallContext context, in ArgumentDescription description, in SyscallArguments arguments, ulong address, ref bool masked)
    {
        if (address == 0) return 0;
        ulong size;
        if (description.Kind == ArgumentKind.SignalMaskPair)
        {
            Span<ulong> pair = stackalloc ulong[2];
            if (!context.TryRead(address, MemoryMarshal.AsBytes(pair))) return -Errno.EFAULT;
            address = pair[0];
            size = pair[1];
            if (address == 0) return 0;
        }
        else
        {
            size = arguments[description.LengthArgument];
        }
        if (size != sizeof(ulong)) return -Errno.EINVAL;
        ulong mask = 0;
        if (!context.TryRead(address, MemoryMarshal.AsBytes(new Span<ulong>(ref mask)))) return -Errno.EFAULT;
        context.SetTemporarySignalMask(mask);
        masked = true;
        return 0;
    }

    /// <summary>Argument registers on their way to the kernel.</summary>
    [InlineArray(6)]
    private struct Registers
    {
        private ulong _first;
    }

    /// <summary>Staged length per argument, 0 where nothing is staged.</summary>
    [InlineArray(6)]
    private struct Lengths
    {
        private long _first;
    }
}
