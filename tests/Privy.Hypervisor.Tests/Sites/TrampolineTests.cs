using Iced.Intel;
using Privy.Hypervisor.Sites;
using Privy.Kernel;
using Privy.Kvm;

namespace Privy.Hypervisor.Tests.Sites;

/// <summary>The code between a site and the stub, and what becomes of a vCPU that is found in it.</summary>
public sealed class TrampolineTests
{
    private const ulong Area = Layout.KernelBase + Layout.VcpuOffset, Page = 0x1000_7FFF_F000, Load = 0x1000_7000_0100;

    private static readonly SyscallSite Long = new(Load, 5, 39, 0, 0) { Bytes = Convert.FromHexString("B827000000") };
    private static readonly SyscallSite Short = new(Load, 2, 0, Load + 0x20, 10) { Bytes = Convert.FromHexString("31C0") };

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void It_changes_no_flags_before_the_load_and_none_after(bool isLong)
    {
        foreach (var instruction in Decode(Assemble(isLong ? Long : Short)))
            Assert.True(instruction.RflagsModified == RflagsBits.None || instruction is { Mnemonic: Mnemonic.Xor, Length: 2 }, instruction.ToString());
    }

    [Fact]
    public void It_loads_the_number_and_leads_back_or_into_the_stub()
    {
        var code = Decode(Assemble(Long)).ToList();
        Assert.Equal(Mnemonic.Rdgsbase, code[0].Mnemonic);
        Assert.Contains(code, i => i.Mnemonic == Mnemonic.Mov && i.Op0Register == Register.EAX && i.Immediate32 == 39);
        Assert.Contains(code, i => i.Mnemonic == Mnemonic.Jmp && i.NearBranchTarget == Long.Syscall);
        Assert.Contains(code, i => i.Mnemonic == Mnemonic.Lea && i.Op0Register == Register.RCX && i.IPRelativeMemoryAddress == Long.Syscall + 2);
        Assert.Equal(Page, code[^1].IPRelativeMemoryAddress);
        Assert.Equal(FlowControl.IndirectBranch, code[^1].FlowControl);
    }

    [Fact]
    public void The_stack_is_not_the_programs_from_LEA_to_the_load_that_ends_it()
    {
        var trampoline = Assemble(Long);
        var own = false;
        foreach (var instruction in Decode(trampoline))
        {
            Assert.Equal(own, trampoline.HasOwnStack(instruction.IP));
            if (instruction.Op0Kind == OpKind.Register && instruction.Op0Register == Register.RSP)
                own = instruction.Mnemonic == Mnemonic.Lea;
        }

        Assert.False(own);
    }

    [Fact]
    public void Wherever_a_vCPU_is_found_it_stands_at_the_SYSCALL_with_the_number()
    {
        foreach (var site in (SyscallSite[])[Long, Short])
        {
            site.Trampoline = Assemble(site);
            foreach (var instruction in Decode(site.Trampoline))
            {
                Assert.True(site.Trampoline.Contains(instruction.IP));
                var registers = new GuestRegisters { Rip = instruction.IP, Rax = 77, Rbx = 5, Rsp = site.Trampoline.HasOwnStack(instruction.IP) ? Area : 0x1234, Rflags = 0xA97 };
                site.Complete(ref registers, 0x1234);
                Assert.Equal((site.Syscall, (ulong)site.Number, 0x1234ul, 5ul), (registers.Rip, registers.Rax, registers.Rsp, registers.Rbx));
                // XOR: zero and even parity, neither sign, carry nor overflow.
                Assert.Equal(site == Long ? 0xA97ul : 0x246ul, registers.Rflags);
            }

            Assert.False(site.Trampoline.Contains(site.Trampoline.Address - 1));
            Assert.False(site.Trampoline.Contains(site.Trampoline.Address + (ulong)site.Trampoline.Code.Length));
        }
    }

    [Fact]
    public void Jumps()
    {
        var far = Decoder.Create(64, Trampoline.Jump(Load, Page), Load).Decode();
        Assert.Equal((Mnemonic.Jmp, 5, Page), (far.Mnemonic, far.Length, far.NearBranchTarget));
        var near = Decoder.Create(64, Trampoline.ShortJump(Load, Load - 100), Load).Decode();
        Assert.Equal((Mnemonic.Jmp, 2, Load - 100), (near.Mnemonic, near.Length, near.NearBranchTarget));
        Assert.Throws<OverflowException>(() => Trampoline.ShortJump(Load, Load + 200));
        Assert.Throws<OverflowException>(() => Trampoline.Jump(Load, Load + (1UL << 32)));
    }

    [Fact]
    public void A_page_is_in_reach_of_libraries_and_one_of_the_program()
    {
        const ulong end = Layout.WindowBase + (1UL << 40);
        var pages = new TrampolinePages(end);
        Assert.Equal(end - Layout.PageSize, pages.ReachableFrom(end - (1UL << 30)));
        Assert.Equal(Layout.WindowBase, pages.ReachableFrom(Layout.WindowBase + 0x5555_6000));
        Assert.Equal(0ul, pages.ReachableFrom(end - (1UL << 33)));
        Assert.Equal(Layout.LowWindowEnd - Layout.PageSize, pages.ReachableFrom(0x40_0000));
        Assert.True(pages.Overlap(end - 1, end));
        Assert.True(pages.Overlap(Layout.WindowBase, end));
        Assert.False(pages.Overlap(Layout.WindowBase + Layout.PageSize, end - Layout.PageSize));
    }

    private static Trampoline Assemble(SyscallSite site) => Trampoline.Assemble(site, Page + TrampolinePages.FirstOffset, Area, Page);

    private static IEnumerable<Instruction> Decode(Trampoline trampoline)
    {
        var decoder = Decoder.Create(64, trampoline.Code, trampoline.Address);
        while (decoder.IP < trampoline.Address + (ulong)trampoline.Code.Length)
            yield return decoder.Decode();
    }
}
