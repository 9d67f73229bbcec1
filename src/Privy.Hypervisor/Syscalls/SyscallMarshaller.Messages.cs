using System.Runtime.InteropServices;
using Privy.Hypervisor.Host;

namespace Privy.Hypervisor.Syscalls;

internal static unsafe partial class SyscallMarshaller
{
    /// <summary>More control data than any kernel accepts (net.core.optmem_max is some 100 KB).</summary>
    private const ulong MaxControl = 1 << 20;

    private const int SolSocket = 1;
    private const int ScmRights = 1;

    /// <summary>struct msghdr.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct MessageHeader
    {
        public ulong Name;
        public int NameLength;
        public int Padding;
        public ulong Vectors;
        public ulong VectorCount;
        public ulong Control;
        public ulong ControlLength;
        public uint Flags;
        public uint Padding2;
    }

    /// <summary>What is needed after the call to deliver one message.</summary>
    private struct MessageStage
    {
        /// <summary>The header as the program gave it.</summary>
        public MessageHeader Guest;
        public VectorStage Vectors;
    }

    private struct MessageBatch
    {
        /// <summary>Headers for the kernel, <see cref="Stride"/> bytes apart.</summary>
        public byte* Headers;
        public MessageStage* Stages;
        public ulong Address;
        public int Count;
        public int Stride;
        public bool Output;
    }

    /// <summary>Copies headers and vectors to the arena, control data too when it is sent; data only where pointers are translated.</summary>
    private static long StageMessages(ISyscallContext context, in ArgumentDescription description, in SyscallArguments arguments, ulong address, ref MessageBatch batch)
    {
        var several = description.Kind is ArgumentKind.MessagesIn or ArgumentKind.MessagesOut;
        batch.Output = description.Kind is ArgumentKind.MessageOut or ArgumentKind.MessagesOut;
        batch.Stride = several ? KernelStructSize.Mmsghdr : KernelStructSize.Msghdr;
        batch.Address = address;
        var count = several ? (int)Math.Min((uint)arguments[description.LengthArgument], MaxVectors) : 1;
        if (count == 0) return 0;

        var length = count * batch.Stride;
        batch.Headers = context.Arena.Allocate(length);
        batch.Stages = (MessageStage*)context.Arena.Allocate((long)count * sizeof(MessageStage));
        if (!context.TryRead(address, new Span<byte>(batch.Headers, length))) return -Errno.EFAULT;
        // The kernel writes the copy, the results are written to the program's headers later: they are outputs all the same.
        if ((batch.Output || several) && !context.Translates && !Prepare(context, address, (ulong)length)) return -Errno.EFAULT;

        for (var i = 0; i < count; i++)
        {
            var header = (MessageHeader*)(batch.Headers + i * batch.Stride);
            var error = StageMessage(context, header, batch.Output, batch.Stages + i);
            if (error < 0) return error;
        }
        batch.Count = count;
        return 0;
    }

    private static long StageMessage(ISyscallContext context, MessageHeader* header, bool output, MessageStage* stage)
    {
        var translates = context.Translates;
        stage->Guest = *header;
        stage->Vectors = default;

        if (header->VectorCount > MaxVectors) return -Errno.EMSGSIZE;
        var error = ReadVectors(context, header->Vectors, header->VectorCount, out var vectors);
        if (error < 0) return error;
        var count = (int)header->VectorCount;
        if (translates)
        {
            error = StageVectors(context, vectors, count, input: !output, out stage->Vectors);
            if (error < 0) return error;
            header->Vectors = (ulong)stage->Vectors.Native;
        }
        else
        {
            if (!output) KeepReachable(context, vectors, count);
            for (var i = 0; output && i < count; i++)
            {
                if ((long)vectors[i].Length < 0) return -Errno.EINVAL;
                if (vectors[i].Length != 0 && !Prepare(context, vectors[i].Base, vectors[i].Length)) return -Errno.EFAULT;
            }
            header->Vectors = (ulong)vectors;
        }

        if (header->Name != 0 && header->NameLength >= 0)
        {
            // The kernel moves at most a sockaddr_storage.
            var length = Math.Min(header->NameLength, KernelStructSize.SockaddrStorage);
            if (translates)
            {
                var name = context.Arena.Allocate(KernelStructSize.SockaddrStorage);
                if (!output && !context.TryRead(header->Name, new Span<byte>(name, length))) return -Errno.EFAULT;
                header->Name = (ulong)name;
                header->NameLength = length;
            }
            else if (output && length > 0 && !Prepare(context, header->Name, (ulong)length))
            {
                return -Errno.EFAULT;
            }
            else if (!output)
            {
                header->Name = Reachable(context, header->Name);
            }
        }

        if (header->Control == 0 || header->ControlLength == 0)
        {
            header->Control = 0;
            return 0;
        }
        if (output)
        {
            if (header->ControlLength > MaxControl) header->ControlLength = MaxControl;
            if (translates) header->Control = (ulong)context.Arena.Allocate((long)header->ControlLength);
            else if (!Prepare(context, header->Control, header->ControlLength)) return -Errno.EFAULT;
            return 0;
        }
        if (header->ControlLength > MaxControl) return -Errno.ENOBUFS;
        var control = context.Arena.Allocate((long)header->ControlLength);
        if (!context.TryRead(header->Control, new Span<byte>(control, (int)header->ControlLength))) return -Errno.EFAULT;
        header->Control = (ulong)control;
        return SendsReservedDescriptor(context, new ReadOnlySpan<byte>(control, (int)header->ControlLength)) ? -Errno.EBADF : 0;
    }

    private static bool SendsReservedDescriptor(ISyscallContext context, ReadOnlySpan<byte> control)
    {
        while (control.Length >= KernelStructSize.Cmsghdr)
        {
            var length = MemoryMarshal.Read<ulong>(control);
            if (length < KernelStructSize.Cmsghdr || length > (ulong)control.Length) return false;
            if (MemoryMarshal.Read<int>(control[8..]) == SolSocket && MemoryMarshal.Read<int>(control[12..]) == ScmRights)
            {
                for (var at = KernelStructSize.Cmsghdr; at + 4 <= (int)length; at += 4)
                    if (context.IsReservedDescriptor(MemoryMarshal.Read<int>(control[at..]))) return true;
            }
            var next = (int)length + 7 & ~7;
            if (next >= control.Length) return false;
            control = control[next..];
        }
        return false;
    }

    private static long DeliverMessages(ISyscallContext context, in MessageBatch batch, long result, bool copyData)
    {
        var several = batch.Stride == KernelStructSize.Mmsghdr;
        var count = several ? Math.Min((int)result, batch.Count) : 1;
        for (var i = 0; i < count; i++)
        {
            var header = (MessageHeader*)(batch.Headers + i * batch.Stride);
            var address = batch.Address + (ulong)(i * batch.Stride);
            var length = several ? *(uint*)((byte*)header + KernelStructSize.Msghdr) : result;
            if (batch.Output)
            {
                ref readonly var stage = ref batch.Stages[i];
                if (copyData)
                {
                    if (!CopyVectorsBack(context, in stage.Vectors, length)) return -Errno.EFAULT;
                    var name = Math.Min(Math.Min(header->NameLength, stage.Guest.NameLength), KernelStructSize.SockaddrStorage);
                    if (stage.Guest.Name != 0 && name > 0 && !context.TryWrite(stage.Guest.Name, new ReadOnlySpan<byte>((void*)header->Name, name))) return -Errno.EFAULT;
                    var control = Math.Min(Math.Min(header->ControlLength, stage.Guest.ControlLength), MaxControl);
                    if (stage.Guest.Control != 0 && control > 0 && !context.TryWrite(stage.Guest.Control, new ReadOnlySpan<byte>((void*)header->Control, (int)control))) return -Errno.EFAULT;
                }
                // msg_namelen, and from msg_controllen to msg_flags.
                if (stage.Guest.NameLength != header->NameLength
                    && !context.TryWrite(address + 8, new ReadOnlySpan<byte>(&header->NameLength, 4))) return -Errno.EFAULT;
                if (!context.TryWrite(address + 40, new ReadOnlySpan<byte>(&header->ControlLength, 12))) return -Errno.EFAULT;
            }
            if (several && !context.TryWrite(address + KernelStructSize.Msghdr, new ReadOnlySpan<byte>(&length, 4))) return -Errno.EFAULT;
        }
        return 0;
    }
}
