using Privy.Hypervisor.Boot;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Syscalls;
using Privy.Kernel;

namespace Privy.Hypervisor.Polling;

/// <summary>
/// Looks at what the connections that <c>epoll_wait</c> has named have received, so that the reads which follow take it from memory without an exit. Nothing is taken
/// from a connection before the program has read it: the bytes are peeked at, and those that were read are received at the thread's next stop.
/// </summary>
internal sealed unsafe class ReadAhead
{
    private const ulong Peek = 0x2, Discard = 0x20, DontWait = 0x40; // MSG_*
    private const uint In = 0x1, Other = 0x2 | 0x8 | 0x10 | 0x2000; // EPOLL*: not with PRI, ERR, HUP, RDHUP
    private const uint Once = 1U << 31 | 1U << 30; // EPOLLET, EPOLLONESHOT
    private const int DataOffset = 4;

    // What one read takes of many connections, and several of a few: they need not wait for events in between.
    private const ulong Most = 16 * 1024, MostOfFew = 64 * 1024;
    private const int Few = 4;

    // How many waits for events are answered before all descriptors are looked at again.
    private const int Waits = 8;

    private const int MostKnown = 1 << 16;
    private static readonly ulong s_first = Layout.KernelBase + Layout.ReadAheadOffset + (SyscallRing.SendDescriptorCount * (ulong)sizeof(Fetched));
    private static readonly ulong s_end = Layout.KernelBase + Layout.ReadAheadOffset + Layout.ReadAheadSize;

    private readonly SyscallRing* _ring;
    private readonly Lock _lock = new();
    private readonly Dictionary<(int Epoll, ulong Data), (int Descriptor, bool Repeats)> _descriptors = [];
    private readonly List<int> _fetched = [];

    internal ReadAhead(SyscallRing* ring) => _ring = ring;

    /// <summary>Reads that were answered from memory.</summary>
    internal long Taken { get; private set; }

    /// <summary>Whether anything was fetched since the last <see cref="Settle"/>.</summary>
    internal bool Any => _fetched.Count > 0;

    /// <summary>Whether a descriptor's bytes were fetched since then.</summary>
    internal static bool Holds(ulong descriptor) => descriptor < SyscallRing.SendDescriptorCount && SyscallRing.FetchedOf((int)descriptor)->Length != 0;

    /// <summary>After an epoll_ctl: which descriptor the events with its data mean. It may be wrong later without harm: then nothing is there to peek at.</summary>
    internal void Learn(int epoll, int operation, int descriptor, ulong @event)
    {
        const int delete = 2;
        if (operation == delete || @event == 0)
            return;
        lock (_lock)
        {
            if (_descriptors.Count >= MostKnown)
                _descriptors.Clear();
            _descriptors[(epoll, *(ulong*)(@event + DataOffset))] = (descriptor, (*(uint*)@event & (In | Once)) == In);
        }
    }

    /// <summary>After an epoll_wait: fetches for the connections that its events name, as far as <paramref name="isEligible"/> says.</summary>
    internal void Fetch(int epoll, ulong events, long count, Func<ulong, bool> isEligible)
    {
        var next = s_first;
        var most = count <= Few ? MostOfFew : Most;
        for (var i = 0L; i < count && s_end - next >= most; i++)
        {
            var at = (byte*)events + (i * SyscallRing.EventSize);
            if ((*(uint*)at & (In | Other)) != In)
                continue;
            var data = *(ulong*)(at + DataOffset);
            int descriptor;
            bool repeats;
            lock (_lock)
            {
                if (!_descriptors.TryGetValue((epoll, data), out var known))
                    continue;
                (descriptor, repeats) = known;
            }

            if (!isEligible((ulong)descriptor) || Holds((ulong)descriptor))
                continue;
            var got = HostSyscall.RawQuick(SyscallNumber.recvfrom, (ulong)descriptor, next, most, Peek | DontWait);
            if (got <= 0)
                continue;
            var fetched = SyscallRing.FetchedOf(descriptor);
            *fetched = new Fetched { Address = next, Length = (ulong)got, More = (ulong)got == most ? 1UL : 0 };
            _fetched.Add(descriptor);
            Interlocked.Or(ref _ring->FetchedDescriptors[descriptor / 32], 1U << (descriptor % 32));
            if (repeats && (_ring->ReadyEpoll < 0 || fetched->Length > _ring->ReadyFetched->Length))
            {
                _ring->ReadyEpoll = epoll;
                _ring->ReadyBudget = Waits;
                _ring->ReadyFetched = fetched;
                *(uint*)_ring->ReadyEvent = In;
                *(ulong*)(_ring->ReadyEvent + DataOffset) = data;
            }

            next += ((ulong)got + 7) & ~7UL;
        }
    }

    /// <summary>Receives what the program has read; what it has not stays for its next reads. By the thread outside of the guest, or by the poller while the thread waits for it.</summary>
    /// <returns>True: it has read something.</returns>
    internal bool Commit()
    {
        var before = Taken;
        for (var i = _fetched.Count - 1; i >= 0; i--)
        {
            var descriptor = _fetched[i];
            var fetched = SyscallRing.FetchedOf(descriptor);
            if (fetched->Taken != 0)
            {
                // TCP drops them without a copy (MSG_TRUNC, tcp(7)); others put them where they are already.
                _ = HostSyscall.RawQuick(SyscallNumber.recvfrom, (ulong)descriptor, fetched->Address, fetched->Taken, Discard | DontWait);
                fetched->Address += fetched->Taken;
                fetched->Length -= fetched->Taken;
                fetched->Taken = 0;
                Taken++;
            }

            if (fetched->Length != 0 && _ring->IsFetched(descriptor))
                continue;
            fetched->Length = 0;
            _ring->ForgetFetched(descriptor);
            _fetched[i] = _fetched[^1];
            _fetched.RemoveAt(_fetched.Count - 1);
        }

        return Taken != before;
    }

    /// <summary>The same, and forgets the rest.</summary>
    internal void Settle()
    {
        foreach (var descriptor in _fetched)
            _ring->ForgetFetched(descriptor);
        _ = Commit();
    }
}
