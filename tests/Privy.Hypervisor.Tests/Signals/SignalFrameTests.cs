using System.Buffers.Binary;
using System.Globalization;
using Privy.Hypervisor.Host;
using Privy.Hypervisor.Signals;
using Privy.Hypervisor.Tests.Host;
using Privy.Kvm;

namespace Privy.Hypervisor.Tests.Signals;

public class SignalFrameTests
{
    // Prints, as numbers: the interrupted rsp, the frame, siginfo, fpstate, uc_flags, the words the kernel leaves at the end of the legacy area,
    // the flags on entry, and offsets of ucontext members as libc's header has them.
    private const string Source = """
        #define _GNU_SOURCE
        #include <signal.h>
        #include <stddef.h>
        #include <stdint.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <ucontext.h>
        #include <unistd.h>
        #include <sys/syscall.h>
        static long out[16];
        static void handler(int s, siginfo_t *i, void *c) {
            ucontext_t *u = c;
            uint64_t *words = c;
            unsigned char *f = (unsigned char *)u->uc_mcontext.fpregs;
            out[0] = u->uc_mcontext.gregs[REG_RSP];
            out[1] = (long)c - 8;
            out[2] = (long)i;
            out[3] = (long)f;
            out[4] = u->uc_flags;
            out[5] = *(uint32_t *)(f + 464);
            out[6] = *(uint32_t *)(f + 468);
            out[7] = *(uint64_t *)(f + 472);
            out[8] = *(uint32_t *)(f + 480);
            out[9] = *(uint32_t *)(f + out[8]);
            out[10] = words[5 + 18];
            out[11] = (long)u->uc_stack.ss_sp;
            out[12] = u->uc_stack.ss_size;
        }
        int main(int n, char **v) {
            char *stack = aligned_alloc(4096, 65536);
            stack_t ss = { .ss_sp = stack, .ss_size = 65536 };
            struct sigaction a = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | (n > 1 ? SA_ONSTACK : 0) };
            sigaltstack(&ss, 0);
            sigaction(SIGUSR1, &a, 0);
            raise(SIGUSR1);
            for (int k = 0; k < 13; k++) printf("%ld ", out[k]);
            printf("%zu %zu %zu %zu %zu", offsetof(ucontext_t, uc_stack), offsetof(ucontext_t, uc_mcontext), offsetof(ucontext_t, uc_mcontext.fpregs),
                offsetof(ucontext_t, uc_sigmask), sizeof(siginfo_t));
        }
        """;

    [CompilerTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_frame_is_where_and_what_the_kernels_is(bool alternate)
    {
        string folder = Directory.CreateTempSubdirectory("privy-frame").FullName;
        string source = Path.Combine(folder, "frame.c"), program = Path.Combine(folder, "frame");
        File.WriteAllText(source, Source);
        Assert.Equal(0, NativeProcess.Run("/usr/bin/cc", ["cc", "-o", program, source]).Status);
        (int status, string output) = NativeProcess.Run(program, alternate ? ["frame", "x"] : ["frame"]);
        Assert.Equal(0, status);
        Directory.Delete(folder, true);
        ulong[] real = [.. output.Split(' ').Select(word => ulong.Parse(word, CultureInfo.InvariantCulture))];

        int length = (int)real[8];
        Assert.Equal(HostXsave.Features & ~(1ul << 9), real[7] & ~(1ul << 9)); // PKRU is in both or hidden.
        Assert.Equal(HostXsave.Length, length);
        using var context = new FakeContext(xsaveLength: length) { XsaveFeatures = real[7] };
        // The same place within a page: only the layout is compared.
        ulong shift = (alternate ? real[11] : real[0] - 0x40000) - FakeContext.MemoryBase & ~0xffful;
        context.Registers.Rsp = alternate ? FakeContext.MemoryBase + 0xf0000 : real[0] - shift;
        if (alternate)
            context.ThreadSignals.AlternateStack = new AlternateStack(real[11] - shift, 0, real[12]);
        context.Handle(Signal.SIGUSR1, SignalAction.SA_SIGINFO | (alternate ? SignalAction.SA_ONSTACK : 0));
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        Assert.Equal(DeliveryOutcome.Resume, SignalDelivery.BeforeReturn(context).Outcome);
        Assert.Equal(real[1] - shift, context.Registers.Rsp);
        Assert.Equal(real[2] - shift, context.Registers.Rsi);
        Assert.Equal(real[1] + 8 - shift, context.Registers.Rdx);
        ulong uc = context.Registers.Rdx;
        Assert.Equal(real[4], context.ReadWord(uc));
        ulong state = context.ReadWord(uc + real[15]);
        Assert.Equal(real[3] - shift, state);
        Assert.Equal(real[5] | real[6] << 32, context.ReadWord(state + 464));
        Assert.Equal(real[7], context.ReadWord(state + 472));
        Assert.Equal(real[8], context.ReadWord(state + 480) & uint.MaxValue);
        Assert.Equal(real[9], context.ReadWord(state + real[8]) & uint.MaxValue);
        Assert.Equal(real[10] & ~0xffffffff0000ul, context.ReadWord(uc + 40 + 144) & ~0xffffffff0000ul); // cs and ss; gs and fs are 0
        Assert.Equal([16ul, 40, 224, 296, 128], real[13..18]);
    }

    private static FakeContext Filled()
    {
        var context = new FakeContext(xsaveLength: 832) { XsaveFeatures = 7 };
        ref GuestRegisters r = ref context.Registers;
        (r.Rax, r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp) = (1, 2, 3, 4, 5, 6, 7);
        (r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15) = (8, 9, 10, 11, 12, 13, 14, 15);
        (r.Rip, r.Rflags) = (0x400100, 0x246 | 0x400 | 0x10000);
        new Random(3).NextBytes(context.Xsave);
        context.Xsave.AsSpan(464, 48).Clear();
        context.Xsave.AsSpan(512, 64).Clear();
        context.Xsave[512] = 7;
        BinaryPrimitives.WriteUInt32LittleEndian(context.Xsave.AsSpan(24), 0x1f80);
        BinaryPrimitives.WriteUInt32LittleEndian(context.Xsave.AsSpan(28), 0xffff);
        context.Trap = new TrapDetails(14, 6, 0xdead);
        context.ThreadSignals.AlternateStack = new AlternateStack(FakeContext.MemoryBase, 0, 0x10000);
        return context;
    }

    [Fact]
    public void A_handler_starts_with_its_arguments_and_return_brings_everything_back()
    {
        using FakeContext context = Filled();
        GuestRegisters before = context.Registers;
        byte[] xsave = [.. context.Xsave];
        SignalSet mask = SignalSet.Of(Signal.SIGHUP);
        context.ThreadSignals.Mask = mask;
        context.Handle(Signal.SIGSEGV, SignalAction.SA_SIGINFO, 1ul << (Signal.SIGTERM - 1));
        context.ProcessSignals.Force(SignalInfo.FromFault(Signal.SIGSEGV, SignalInfo.SEGV_MAPERR, 0xdead), context.ThreadSignals);
        Assert.Equal(DeliveryOutcome.Resume, SignalDelivery.BeforeReturn(context).Outcome);

        GuestRegisters handler = context.Registers;
        Assert.Equal((0x401000ul, (ulong)Signal.SIGSEGV, 0ul, 0x246ul), (handler.Rip, handler.Rdi, handler.Rax, handler.Rflags));
        Assert.Equal(8ul, handler.Rsp & 15);
        Assert.True(handler.Rsp < before.Rsp - 128);
        Assert.Equal(0x402000ul, context.ReadWord(handler.Rsp));
        Assert.Equal(0xdeadul, context.ReadWord(handler.Rsi + 16));
        Assert.Equal((6ul, 14ul, mask.Bits, 0xdeadul), (context.ReadWord(handler.Rdx + 40 + 152), context.ReadWord(handler.Rdx + 40 + 160), context.ReadWord(handler.Rdx + 40 + 168), context.ReadWord(handler.Rdx + 40 + 176)));
        Assert.Equal(SignalSet.Of(Signal.SIGHUP, Signal.SIGTERM, Signal.SIGSEGV), context.ThreadSignals.Mask);

        // The handler runs and changes everything.
        context.Registers = new GuestRegisters { Rsp = handler.Rsp, Rflags = 0x202 };
        new Random(4).NextBytes(context.Xsave);
        RestartTests.Return(context);
        Assert.Equal(before, context.Registers);
        Assert.Equal(xsave, context.Xsave);
        Assert.Equal(mask, context.ThreadSignals.Mask);
        Assert.Equal(0x10000ul, context.ThreadSignals.AlternateStack.Length);
        Assert.Equal(-1, context.CallNumber);
    }

    [Fact]
    public void Return_sanitises_flags_and_rejects_impossible_state()
    {
        using FakeContext context = Filled();
        context.Handle(Signal.SIGUSR1);
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        SignalDelivery.BeforeReturn(context);
        ulong uc = context.Registers.Rdx, stack = context.Registers.Rsp, state = context.ReadWord(uc + 224);
        context.WriteWords(uc + 40 + 136, ulong.MaxValue);
        context.WriteWords(uc + 296, ulong.MaxValue);
        RestartTests.Return(context);
        Assert.Equal(0x50fd5ul | 0x202 | (0x10000 | 0x40000), context.Registers.Rflags);
        Assert.Equal(~SignalSet.Unblockable, context.ThreadSignals.Mask);

        void Rejected(ulong address, ulong value)
        {
            ulong old = context.ReadWord(address);
            context.WriteWords(address, value);
            context.ThreadSignals.Mask = default;
            context.Registers.Rsp = stack;
            RestartTests.Return(context);
            Assert.Equal(new DeliveryResult(DeliveryOutcome.TerminateWithCore, Signal.SIGSEGV), SignalDelivery.BeforeReturn(context));
            context.WriteWords(address, old);
        }

        Rejected(uc + 224, state + 8); // not aligned
        Rejected(uc + 224, 0x1000); // not mapped
        Rejected(state + 512, 0x100); // a component that does not exist
        Rejected(state + 520, 1ul << 63); // compacted
        Rejected(state + 24, 0xffff_0000 | 0xfffful << 32); // reserved MXCSR bits

        // No extended state: the initial one.
        context.WriteWords(uc + 224, 0);
        context.Registers.Rsp = stack;
        RestartTests.Return(context);
        Assert.Equal(0x37f, BinaryPrimitives.ReadUInt16LittleEndian(context.Xsave));
    }

    [Fact]
    public void A_frame_that_cannot_be_written_is_a_fault_that_the_alternate_stack_may_take()
    {
        using FakeContext context = Filled();
        context.Handle(Signal.SIGUSR1, SignalAction.SA_RESTART);
        context.Registers.Rsp = 0x5000;
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        Assert.Equal(new DeliveryResult(DeliveryOutcome.TerminateWithCore, Signal.SIGSEGV), SignalDelivery.BeforeReturn(context));

        context.Handle(Signal.SIGSEGV, SignalAction.SA_ONSTACK);
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        Assert.Equal(DeliveryOutcome.Resume, SignalDelivery.BeforeReturn(context).Outcome);
        Assert.True(context.ThreadSignals.AlternateStack.Contains(context.Registers.Rsp));
        Assert.Equal((ulong)Signal.SIGSEGV, context.Registers.Rdi);
    }

    [Fact]
    public void The_alternate_stack_is_entered_once_disarmed_when_asked_and_never_overrun()
    {
        using FakeContext context = Filled();
        context.Handle(Signal.SIGUSR1, SignalAction.SA_ONSTACK | SignalAction.SA_NODEFER);
        for (int i = 0; i < 2; i++)
        {
            ulong before = context.Registers.Rsp;
            context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
            SignalDelivery.BeforeReturn(context);
            Assert.True(context.ThreadSignals.AlternateStack.Contains(context.Registers.Rsp));
            Assert.True(i == 0 || context.Registers.Rsp < before - 128);
        }
        context.Registers.Rsp = FakeContext.MemoryBase + 0x200; // nearly full
        context.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        Assert.Equal(DeliveryOutcome.TerminateWithCore, SignalDelivery.BeforeReturn(context).Outcome);

        using FakeContext disarming = Filled();
        disarming.ThreadSignals.AlternateStack = disarming.ThreadSignals.AlternateStack with { Flags = AlternateStack.SS_AUTODISARM };
        disarming.Handle(Signal.SIGUSR1, SignalAction.SA_ONSTACK);
        disarming.ProcessSignals.Send(FakeContext.User(Signal.SIGUSR1));
        SignalDelivery.BeforeReturn(disarming);
        Assert.Equal(0ul, disarming.ThreadSignals.AlternateStack.Length);
        RestartTests.Return(disarming);
        Assert.Equal(new AlternateStack(FakeContext.MemoryBase, AlternateStack.SS_AUTODISARM, 0x10000), disarming.ThreadSignals.AlternateStack);
    }
}

/// <summary>A test that compares with what a C program sees.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class CompilerTheoryAttribute : TheoryAttribute
{
    public CompilerTheoryAttribute()
    {
        if (!File.Exists("/usr/bin/cc"))
            Skip = "needs a C compiler at /usr/bin/cc";
    }
}
