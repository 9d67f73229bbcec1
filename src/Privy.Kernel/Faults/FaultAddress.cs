namespace Privy.Kernel;

/// <summary>
/// The address of a page fault that came straight to ring 3. Only ring 0 can read CR2, and on paravirtual KVM the way through ring 0 is a third to a half of what a fault costs
/// (docs/performance.md). So the address is guessed from the instruction.
/// </summary>
/// <remarks>
/// A wrong guess does no harm: an entry is made, or a page copied, that the program may well use, but was not about to. Then the instruction faults again. A fault that comes twice in a row with
/// the same guess, one for which there is none, and one that looks like a bad access, is led through ring 0: the gate is changed, the program goes on, and the same fault tells its address.
/// </remarks>
internal static unsafe class FaultAddress
{
    // Present, write, user, fetch (Intel SDM vol. 3, 4.7): what page tables can mend. The others say that something is wrong.
    private const ulong OrdinaryErrors = 0x17;

    /// <summary>Guesses; the caller has the lock. False: ring 0 must be asked.</summary>
    internal static bool Guess(KernelState* k, VcpuArea* v, bool write, bool fetch, out ulong address)
    {
        TrapFrame* trap = v->Trap;
        address = trap->Rip;
        if ((trap->Error & ~OrdinaryErrors) != 0)
            return false;
        if (trap->Rip == v->CopyRip)
        {
            const int rsi = 6, rdi = 7;
            address = v->Registers[write ? rdi : rsi];
        }
        else if (!fetch)
        {
            ulong* code = &v->Code0;
            if (!ReadCode(k, v, trap->Rip, code)
                || !MemoryOperand.Find((byte*)code, trap->Rip, v->Registers, write, k->SegmentBases != 0, out address))
            {
                return false;
            }
        }
        if (trap->Rip == v->GuessRip && address == v->GuessAddress && trap->Error == v->GuessError)
            return false;
        v->GuessRip = trap->Rip;
        v->GuessAddress = address;
        v->GuessError = trap->Error;
        return true;
    }

    /// <summary>Has the fault come again by ring 0.</summary>
    internal static void Ask(VcpuArea* v)
    {
        v->FaultsAsked++;
        System.Threading.Volatile.Write(ref *v->FaultGate, v->GateThroughRing0);
    }

    /// <summary>Ring 0 has told an address: the next fault may come directly again.</summary>
    internal static void Told(VcpuArea* v)
    {
        if (v->GateDirect == 0)
            return;
        v->GuessRip = 0;
        System.Threading.Volatile.Write(ref *v->FaultGate, v->GateDirect);
    }

    /// <summary>
    /// Reads the instruction where the processor has just read it, by way of the direct map: its own address may be without an entry by now, as other vCPUs unmap, and take snapshots.
    /// </summary>
    private static bool ReadCode(KernelState* k, VcpuArea* v, ulong rip, ulong* code)
    {
        const ulong words = MemoryOperand.CodeBytes / sizeof(ulong);
        if (!LinearMap.Contains(k, rip) || (rip & (Layout.PageSize - 1)) > Layout.PageSize - MemoryOperand.CodeBytes)
            return false;
        ulong entry = Walk.PageEntry(k, k->Spaces + v->Space, rip);
        if ((entry & (Entry.Present | Entry.User)) != (Entry.Present | Entry.User))
            return false;
        ulong physical = (entry & Entry.AddressMask) | (rip & (Layout.PageSize - 1));
        return DirectMap.Ensure(k, v, physical) == Outcome.Done && Intrinsics.TryCopy(code, DirectMap.At(k, physical), words);
    }
}
