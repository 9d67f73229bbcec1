using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;

namespace Privy.Hypervisor.Polling;

/// <summary>
/// Collects the small writes of the program's first thread to its connections, so that many answers cost one exit: a server reads the requests that are there,
/// answers each, and then waits for more. The system-call stub appends the writes to a buffer (<see cref="SyscallRing"/>); they are made, in order, at
/// the thread's next call that could wait or that anybody could see.
/// </summary>
/// <remarks>
/// <para>
/// The thread's own processor makes them, in one go with the wait for more requests. By the polling thread they would be made on the processor that whoever sends
/// the requests has for himself where there are two: it receives what is sent on a loopback connection as well.
/// </para>
/// <para>
/// A connection is eligible once some writes to it have succeeded: a stream socket that does not wait, with SIGPIPE ignored. What its other end sees is what it would see
/// of a kernel that is a little slower: a write that has succeeded is sent within <see cref="LongestDelay"/>, before any later call of this thread but a receiving one, and
/// before any call of another thread on the same descriptor. If there is no room for all of it, <see cref="SendRemainders"/> has the rest. An error is
/// reported by the next write, as by a kernel that has met it after the one before.
/// </para>
/// </remarks>
internal sealed unsafe class DeferredSends : IDisposable
{
    private const ulong DontWait = 0x40, NoSignal = 0x4000; // MSG_*

    private const ulong SetFlags = 4, SetNonBlocking = 0x5421; // F_SETFL, FIONBIO

    // Writes that must have succeeded on a descriptor before it is looked at; and instead of a count: never.
    private const byte Proven = 8, Never = 255;

    // So few are made by the poller, at once: an exit costs as much as four.
    private const int Few = 2;

    /// <summary>How long a write may lie in the buffer while the thread computes, in nanoseconds.</summary>
    internal const long LongestDelay = 1_000_000;

    // The same while the poller is there to see it: in a twentieth of this time the thread leaves the guest and comes back.
    private const long LongestWatchedDelay = 500_000;

    private readonly Vcpu _vcpu;
    private readonly SyscallRing* _ring;
    private readonly ulong _buffer;
    private readonly Func<bool> _ignoresBrokenPipes;
    private readonly byte[] _successes = new byte[SyscallRing.SendDescriptorCount];
    private readonly Dictionary<int, int> _errors = [];
    private readonly SendRemainders _remainders = new();
    private readonly ReadAhead _ahead;
    private readonly Func<ulong, bool> _isDeferred;
    private long _pendingSince;
    private bool _any;
    private volatile bool _settleAsked;

    private DeferredSends(Vcpu vcpu, ulong buffer, Func<bool> ignoresBrokenPipes)
    {
        _vcpu = vcpu;
        _ring = vcpu.Ring;
        _buffer = buffer;
        _ignoresBrokenPipes = ignoresBrokenPipes;
        _ahead = new ReadAhead(_ring);
        _isDeferred = IsDeferred;
        _ring->BufferNext = buffer;
        _ring->BufferEnd = buffer + Layout.WriteBufferSize;
    }

    /// <summary>For the first thread of the main process; null where the stub must not touch the program's memory (in ring 0), or there is no buffer.</summary>
    internal static DeferredSends? For(Vcpu vcpu, Func<bool> ignoresBrokenPipes)
    {
        var buffer = vcpu.WriteBuffer;
        return buffer == 0 ? null : new DeferredSends(vcpu, buffer, ignoresBrokenPipes);
    }

    /// <summary>Writes made so far.</summary>
    internal long Made { get; private set; }

    /// <summary>Reads that were answered from what had been received ahead.</summary>
    internal long Taken => _ahead.Taken;

    private bool Pending => Volatile.Read(ref _ring->BufferNext) != _buffer;

    /// <summary>Makes the writes in the buffer, and forgets what was received ahead. By the thread itself outside of the guest, or by the poller while the thread waits for it.</summary>
    internal void Flush()
    {
        _settleAsked = false;
        _ahead.Settle();
        MakeWrites();
    }

    private void MakeWrites()
    {
        var end = _ring->BufferNext;
        if (end == _buffer)
            return;
        for (var at = _buffer; at < end;)
        {
            var (descriptor, length) = (*(int*)at, *(uint*)(at + sizeof(int)));
            Send(descriptor, at + SyscallRing.SendHeader, length);
            at = Next(at);
            Made++;
        }

        Volatile.Write(ref _ring->BufferNext, _buffer);
    }

    /// <summary>The thread was kicked out of the program.</summary>
    /// <param name="tick">Nobody wants it: its writes have lain long enough.</param>
    /// <returns>True: writes are put off from now on, and nobody but a tick would end that.</returns>
    internal bool Kicked(bool tick)
    {
        if (!tick)
        {
            Flush();
            _ring->SendsOpen = 0;
            return false;
        }

        var answers = Pending;
        answers |= _ahead.Commit();
        MakeWrites();
        // Nothing is put off any more until it waits for events the next time: it computes, as it seems.
        if (!answers)
            _ring->SendsOpen = 0;
        return answers && _ring->SendsOpen != 0 && _ring->Mode != SyscallMode.Ring;
    }

    /// <summary>Before the thread goes back into the program: another has asked for what is put off.</summary>
    internal void FlushIfAsked()
    {
        if (_settleAsked)
            Flush();
    }

    /// <summary>After a call that the thread has made itself.</summary>
    /// <returns>True: writes are put off from now on, and nobody but a tick of the thread's own (<see cref="LongestDelay"/>) would end that.</returns>
    internal bool After(long number, in SyscallArguments arguments, long result)
    {
        Learn(number, arguments.A0, arguments.A1, arguments.A2, arguments.A3, result);
        return result > 0 && _ring->SendsOpen != 0 && number is SyscallNumber.epoll_wait or SyscallNumber.epoll_pwait && _ring->Mode != SyscallMode.Ring;
    }

    /// <summary>Before a call of the thread is carried out by the thread. False: it has a result already.</summary>
    internal bool Before(long number, in SyscallArguments arguments, out long result)
    {
        result = 0;
        Settle(number, arguments.A0);
        MakeWrites();
        if (!_any)
            return true;
        var descriptor = (int)arguments.A0;
        switch (number)
        {
            case SyscallNumber.sendmsg or SyscallNumber.sendmmsg:
                // It may hand a descriptor to another process, which may write there itself.
                ForgetAll();
                return BeforeWrite(descriptor, out result);
            case SyscallNumber.write or SyscallNumber.writev or SyscallNumber.sendto or SyscallNumber.sendfile:
                return BeforeWrite(descriptor, out result);
            case SyscallNumber.shutdown when (int)arguments.A1 != 0 && _remainders.ShutDownWhenSent(descriptor):
                Forget(descriptor);
                return false;
            case SyscallNumber.close:
                Forget(descriptor);
                _ = _errors.Remove(descriptor);
                _remainders.Closed(descriptor);
                break;
            case SyscallNumber.dup2 or SyscallNumber.dup3:
                Forget((int)arguments.A1);
                _ = _errors.Remove((int)arguments.A1);
                _remainders.Closed((int)arguments.A1);
                break;
            case SyscallNumber.fcntl when arguments.A1 != SetFlags:
            case SyscallNumber.ioctl when arguments.A1 != SetNonBlocking:
                break;
            case SyscallNumber.fcntl or SyscallNumber.ioctl or SyscallNumber.setsockopt or SyscallNumber.shutdown or SyscallNumber.connect:
                Forget(descriptor);
                break;
            case SyscallNumber.close_range or SyscallNumber.rt_sigaction or SyscallNumber.splice or SyscallNumber.tee or SyscallNumber.execve:
                ForgetAll();
                break;
        }

        return true;
    }

    /// <summary>
    /// A connection has a second descriptor, by any thread of the process: neither is eligible any more, as they could not be told for one when it matters.
    /// </summary>
    internal void Duplicated(int descriptor, int duplicate)
    {
        Exclude(descriptor);
        Exclude(duplicate);

        void Exclude(int one)
        {
            if ((uint)one >= SyscallRing.SendDescriptorCount)
                return;
            Forget(one);
            _successes[one] = Never;
        }
    }

    /// <summary>Before a call of another thread of the process: what this thread has written to the same descriptor comes first.</summary>
    internal void BeforeOther(long number, in SyscallArguments arguments)
    {
        if (!_any)
            return;
        if (number is SyscallNumber.close_range or SyscallNumber.sendmsg or SyscallNumber.sendmmsg or SyscallNumber.splice or SyscallNumber.tee or SyscallNumber.execve)
            ForgetAll();
        else if (IsDeferred(arguments.A0))
            _ring->ForgetBuffered((int)arguments.A0);
        else if (number is SyscallNumber.dup2 or SyscallNumber.dup3 && IsDeferred(arguments.A1))
            _ring->ForgetBuffered((int)arguments.A1);
        else
            return;
        // The stub may have looked at the descriptor's bit just before.
        _settleAsked = true;
        _vcpu.RequestExit();
        var spinner = default(SpinWait);
        while (((Pending || Volatile.Read(ref _vcpu.Area->InGuest) != 0) && (Volatile.Read(ref _vcpu.Area->ExitRequest) & ExitReason.Host) != 0) || (_settleAsked && _ahead.Any))
            spinner.SpinOnce();
    }

    /// <summary>
    /// By the poller, which has claimed a call: whether it may make it. What is in the buffer comes first, unless the call only receives: few writes the
    /// poller makes itself, more are left to the thread.
    /// </summary>
    internal bool Admits(SyscallRing* words)
    {
        if (words != _ring)
            return !IsDeferred(words->A0);
        Settle((long)words->Number, words->A0);
        if (words->Number is SyscallNumber.read or SyscallNumber.recvfrom or SyscallNumber.readv)
            return true;
        if (Pending)
        {
            if (!AreFew())
                return false;
            MakeWrites();
        }

        // Errors and remainders are the thread's to deal with.
        return _errors.Count == 0 && !_remainders.Any;
    }

    /// <summary>
    /// By the poller, after a call: whether its result stands. A receiving call that has found nothing may have missed what the thread has sent to itself. Learns of
    /// connections from writes that succeed.
    /// </summary>
    internal bool Answers(SyscallRing* words, long result)
    {
        if (result == -Errno.EAGAIN && words == _ring && Pending)
            return false;
        if (words == _ring)
            Learn((long)words->Number, words->A0, words->A1, words->A2, words->A3, result);
        return true;
    }

    /// <summary>By the poller, now and then: a thread that computes is made to leave the guest, so that its writes are made.</summary>
    /// <param name="now">Nanoseconds.</param>
    internal void Watch(long now)
    {
        if (!Pending)
        {
            _pendingSince = 0;
        }
        else if (_pendingSince == 0)
        {
            _pendingSince = now;
        }
        else if (now - _pendingSince > LongestWatchedDelay)
        {
            _pendingSince = 0;
            // Like a tick; a request would ask for more.
            _vcpu.Kick();
        }
    }

    /// <summary>By the poller, when the stub has been told to buffer no more: it may have looked just before, and nobody watches from now on.</summary>
    internal void Unwatched()
    {
        if (_any)
            _vcpu.RequestExit();
    }

    /// <summary>The thread ends; the process may go on.</summary>
    public void Dispose()
    {
        Flush();
        ForgetAll();
        _remainders.Dispose();
    }

    /// <summary>Learns of connections, from writes that succeed and from events that are asked for, and fetches what those have that have events.</summary>
    private void Learn(long number, ulong a0, ulong a1, ulong a2, ulong a3, long result)
    {
        switch (number)
        {
            case SyscallNumber.write when result > 0 && a0 < SyscallRing.SendDescriptorCount:
                ref var successes = ref _successes[a0];
                if (successes < Proven && ++successes == Proven)
                    Consider((int)a0);
                break;
            case SyscallNumber.epoll_ctl when result == 0:
                _ahead.Learn((int)a0, (int)a1, (int)a2, a3);
                break;
            case SyscallNumber.epoll_wait or SyscallNumber.epoll_pwait when result > 0 && _any:
                _ring->SendsOpen = 1;
                _ahead.Fetch((int)a0, a1, result, _isDeferred);
                break;
        }
    }

    /// <summary>
    /// Before a call of the thread: receives what it has read. The rest stays where the call is known not to see it, nor to wait: then another thread might wait for
    /// this one (<see cref="BeforeOther"/>).
    /// </summary>
    private void Settle(long number, ulong descriptor)
    {
        if (number is SyscallNumber.read or SyscallNumber.write && IsDeferred(descriptor))
        {
            if (number == SyscallNumber.read)
                _ring->ForgetFetched((int)descriptor);
            _ = _ahead.Commit();
        }
        else
        {
            _ahead.Settle();
        }
    }

    private bool BeforeWrite(int descriptor, out long result)
    {
        result = 0;
        if (_errors.Remove(descriptor, out var error))
            result = -error;
        else if (!_remainders.TrySend(descriptor))
            result = -Errno.EAGAIN;
        return result == 0;
    }

    private void Send(int descriptor, ulong address, uint length)
    {
        if (_remainders.TryAppend(descriptor, new ReadOnlySpan<byte>((void*)address, (int)length)))
            return;
        long result;
        do
            result = HostSyscall.Raw(SyscallNumber.sendto, (ulong)descriptor, address, length, DontWait | NoSignal);
        while (result == -Errno.EINTR);
        if (result == length)
            return;
        Forget(descriptor);
        if (result is >= 0 or -Errno.EAGAIN)
        {
            _successes[descriptor] = Never;
            var sent = (uint)Math.Max(0, result);
            _remainders.Add(descriptor, new ReadOnlySpan<byte>((void*)(address + sent), (int)(length - sent)));
        }
        else
        {
            _errors[descriptor] = (int)-result;
        }
    }

    private void Consider(int descriptor)
    {
        const ulong socketLevel = 1, type = 3, domain = 39, peerCredentials = 17;
        const int stream = 1, local = 1, internet = 2, internet6 = 10;
        const long nonBlocking = 0x800;
        if (!_ignoresBrokenPipes() || !IsOption(type, stream) || !(IsOption(domain, internet) || IsOption(domain, internet6) || IsOption(domain, local)))
            return;
        var flags = HostSyscall.RawQuick(SyscallNumber.fcntl, (ulong)descriptor, 3);
        if (flags < 0 || (flags & nonBlocking) == 0)
            return;
        // Who writes to himself finds at once what he wrote. What is left of that on the Internet's sockets, Answers sees to.
        var peer = stackalloc int[3];
        var peerLength = 3 * sizeof(int);
        if (IsOption(domain, local) && (HostSyscall.RawQuick(SyscallNumber.getsockopt, (ulong)descriptor, socketLevel, peerCredentials, (ulong)peer, (ulong)&peerLength) != 0
            || peer[0] == Environment.ProcessId))
        {
            return;
        }

        _any = true;
        Interlocked.Or(ref _ring->SendDescriptors[descriptor / 32], 1U << (descriptor % 32));

        bool IsOption(ulong option, int wanted)
        {
            var value = 0;
            var length = sizeof(int);
            return HostSyscall.RawQuick(SyscallNumber.getsockopt, (ulong)descriptor, socketLevel, option, (ulong)&value, (ulong)&length) == 0 && value == wanted;
        }
    }

    private bool IsDeferred(ulong descriptor) =>
        descriptor < SyscallRing.SendDescriptorCount && (Volatile.Read(ref _ring->SendDescriptors[descriptor / 32]) >> (int)(descriptor % 32) & 1) != 0;

    private bool AreFew()
    {
        var end = _ring->BufferNext;
        var at = _buffer;
        for (var n = 0; n < Few && at < end; n++)
            at = Next(at);
        return at >= end;
    }

    /// <summary>The header after the one at an address and its bytes.</summary>
    private static ulong Next(ulong at)
    {
        var length = *(uint*)(at + sizeof(int));
        return at + SyscallRing.SendHeader + ((length + SyscallRing.SendHeader - 1) & ~(ulong)(SyscallRing.SendHeader - 1));
    }

    private void Forget(int descriptor)
    {
        if ((uint)descriptor >= SyscallRing.SendDescriptorCount)
            return;
        _ring->ForgetBuffered(descriptor);
        _successes[descriptor] = 0;
    }

    private void ForgetAll()
    {
        for (var i = 0; i < SyscallRing.SendDescriptorCount; i++)
            Forget(i);
    }
}
