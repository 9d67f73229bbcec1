using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Privy;

namespace Htap;

/// <summary>
/// Accounts and orders in a region. A transaction moves money between two accounts and inserts an order that says so. The accounts are divided into partitions with a lock each;
/// a transaction holds the locks of the two it touches, and whoever holds all of them sees no transaction half done.
/// </summary>
internal sealed unsafe class Bank
{
    internal const int Partitions = 64;
    internal const long InitialBalance = 1_000_000;

    [StructLayout(LayoutKind.Sequential, Size = 64)]
    internal struct Account
    {
        internal long Balance;
        internal long Received;
        internal long Sent;
        internal long Orders;
    }

    [StructLayout(LayoutKind.Sequential, Size = 32)]
    internal struct Order
    {
        internal long Number;
        internal int From;
        internal int To;
        internal long Amount;
        internal ulong Check;
    }

    /// <summary>A partition's counters, a page each.</summary>
    [StructLayout(LayoutKind.Sequential, Size = SnapshotRegion.PageSize)]
    internal struct Counters
    {
        internal long Orders;
        internal long Amount;
    }

    private readonly Lock[] _locks = new Lock[Partitions];
    private readonly byte* _memory;

    internal Bank(SnapshotRegion region)
    {
        for (int i = 0; i < Partitions; i++)
            _locks[i] = new Lock();
        _memory = region.Pointer;
        // Half of the memory for accounts, half for the latest orders.
        long bytes = region.Length - Partitions * sizeof(Counters);
        AccountsPerPartition = (int)Math.Min(bytes / 2 / Partitions / sizeof(Account), int.MaxValue / Partitions);
        OrdersPerPartition = (int)Math.Min(bytes / 2 / Partitions / sizeof(Order), int.MaxValue);
        OrdersOffset = Partitions * sizeof(Counters) + (long)Partitions * AccountsPerPartition * sizeof(Account);
        for (int partition = 0; partition < Partitions; partition++)
        {
            for (int i = 0; i < AccountsPerPartition; i++)
                AccountAt(_memory, partition, i)->Balance = InitialBalance;
        }
    }

    internal int AccountsPerPartition { get; }

    internal int OrdersPerPartition { get; }

    private long OrdersOffset { get; }

    internal long Accounts => (long)Partitions * AccountsPerPartition;

    internal void Transact(ref Random64 random)
    {
        int fromPartition = random.Below(Partitions);
        int toPartition = random.Below(Partitions);
        int from = random.Below(AccountsPerPartition);
        int to = random.Below(AccountsPerPartition);
        long amount = random.Below(100) + 1;
        // Always in the same order, so that no two wait for each other.
        Lock first = _locks[Math.Min(fromPartition, toPartition)];
        Lock second = _locks[Math.Max(fromPartition, toPartition)];
        lock (first)
        {
            lock (second)
            {
                Account* sender = AccountAt(_memory, fromPartition, from);
                Account* receiver = AccountAt(_memory, toPartition, to);
                sender->Balance -= amount;
                sender->Sent += amount;
                receiver->Balance += amount;
                receiver->Received += amount;
                sender->Orders++;
                Counters* counters = CountersAt(_memory, fromPartition);
                Order* order = OrderAt(_memory, fromPartition, counters->Orders);
                order->Number = ++counters->Orders;
                order->From = from;
                order->To = toPartition * AccountsPerPartition + to;
                order->Amount = amount;
                order->Check = Check(order);
                counters->Amount += amount;
            }
        }
    }

    /// <summary>Runs something between transactions.</summary>
    internal T Between<T>(Func<T> action)
    {
        foreach (Lock gate in _locks)
            gate.Enter();
        try
        {
            return action();
        }
        finally
        {
            foreach (Lock gate in _locks)
                gate.Exit();
        }
    }

    /// <summary>The analyst's query over a snapshot: totals over all accounts and the orders that are kept, and what must hold of them.</summary>
    /// <exception cref="InvariantException">The snapshot is not a state between transactions.</exception>
    internal Report Query(Snapshot snapshot)
    {
        byte* view = snapshot.Pointer;
        long balance = 0, received = 0, sent = 0, richest = long.MinValue, amount = 0, accountOrders = 0, orders = 0, kept = 0;
        for (int partition = 0; partition < Partitions; partition++)
        {
            for (int i = 0; i < AccountsPerPartition; i++)
            {
                Account* account = AccountAt(view, partition, i);
                if (account->Balance != InitialBalance + account->Received - account->Sent)
                    throw new InvariantException($"account {i} of partition {partition} has {account->Balance}, received {account->Received}, sent {account->Sent}");
                balance += account->Balance;
                received += account->Received;
                sent += account->Sent;
                accountOrders += account->Orders;
                richest = Math.Max(richest, account->Balance);
            }
            Counters* counters = CountersAt(view, partition);
            orders += counters->Orders;
            amount += counters->Amount;
            long recent = 0;
            for (long number = Math.Max(0, counters->Orders - OrdersPerPartition); number < counters->Orders; number++)
            {
                Order* order = OrderAt(view, partition, number);
                if (order->Number != number + 1 || order->Check != Check(order))
                    throw new InvariantException($"order {number + 1} of partition {partition} is torn or missing");
                recent += order->Amount;
                kept++;
            }
            if (counters->Orders <= OrdersPerPartition && recent != counters->Amount)
                throw new InvariantException($"the orders of partition {partition} amount to {recent}, its counter says {counters->Amount}");
        }
        if (balance != Accounts * InitialBalance)
            throw new InvariantException($"all balances together are {balance} in place of {Accounts * InitialBalance}");
        if (received != sent || sent != amount)
            throw new InvariantException($"received {received}, sent {sent}, ordered {amount}");
        if (accountOrders != orders)
            throw new InvariantException($"the accounts know of {accountOrders} orders, the partitions of {orders}");
        return new Report(orders, amount, richest, kept);
    }

    private Account* AccountAt(byte* memory, int partition, int index) =>
        (Account*)(memory + Partitions * sizeof(Counters)) + (long)partition * AccountsPerPartition + index;

    private static Counters* CountersAt(byte* memory, int partition) => (Counters*)memory + partition;

    private Order* OrderAt(byte* memory, int partition, long number) =>
        (Order*)(memory + OrdersOffset) + (long)partition * OrdersPerPartition + number % OrdersPerPartition;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Check(Order* order) => ((ulong)order->Number * 0x9e3779b97f4a7c15) ^ ((ulong)(uint)order->From << 32 | (uint)order->To) ^ ((ulong)order->Amount << 17);
}

/// <summary>What a query found.</summary>
internal readonly record struct Report(long Orders, long Amount, long Richest, long OrdersRead);

/// <summary>A snapshot shows a state that never was between two transactions.</summary>
internal sealed class InvariantException(string message) : Exception(message);

/// <summary>xorshift64*.</summary>
internal struct Random64(ulong seed)
{
    private ulong _state = seed * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019;

    internal int Below(int bound)
    {
        _state ^= _state >> 12;
        _state ^= _state << 25;
        _state ^= _state >> 27;
        return (int)(((_state * 0x2545f4914f6cdd1d >> 32) * (ulong)bound) >> 32);
    }
}
