using System.Runtime.InteropServices;
using Iced.Intel;
using Privy.Hypervisor.Signals;
using static Iced.Intel.AssemblerRegisters;

namespace Privy.Hypervisor.Host;

/// <summary>
/// Tells that a child of this process in the host has stopped, gone on or ended: SIGCHLD, which is sent for a stop whatever the child was made with. A descriptor to poll tells of ends alone.
/// The handler is machine code, sets a word and writes to an eventfd; the threads that run the program block the signal.
/// </summary>
internal sealed unsafe class ChildNews
{
    // The words of the handler: whether there is news, the eventfd, what is written to it.
    private const int News = 0, Event = 4, One = 8, Size = 16;

    private readonly byte* _words;

    /// <summary>Begins.</summary>
    /// <param name="eventDescriptor">Becomes readable with each news. Every table of descriptors must have it.</param>
    internal ChildNews(int eventDescriptor)
    {
        _words = (byte*)NativeMemory.AlignedAlloc(Size, Size);
        *(int*)(_words + News) = 0;
        *(int*)(_words + Event) = eventDescriptor;
        *(ulong*)(_words + One) = 1;
        var (handler, restorer) = Assemble((ulong)_words);
        KernelSigaction.Set(Signal.SIGCHLD, new KernelSigaction
        {
            Handler = handler,
            // SA_RESTART, and everything blocked in the handler: the thread it happens to hit has nothing to do with it.
            Flags = KernelSigaction.SaSiginfo | KernelSigaction.SaOnstack | KernelSigaction.SaRestart | KernelSigaction.SaRestorer,
            Restorer = restorer,
            Mask = ulong.MaxValue,
        });
    }

    /// <summary>The calling thread blocks the signal from now on. Others take it.</summary>
    internal static void KeepFromThisThread()
    {
        var news = SignalSet.Of(Signal.SIGCHLD).Bits;
        _ = HostSyscall.RawQuick(HostCallNumber.RtSigprocmask, 0, (ulong)&news, 0, sizeof(ulong));
    }

    /// <summary>True if there has been any since the last call.</summary>
    internal bool Take() => Interlocked.Exchange(ref *(int*)(_words + News), 0) != 0;

    private static (ulong Handler, ulong Restorer) Assemble(ulong words)
    {
        var c = new Assembler(64);
        Label handler = c.CreateLabel(), restorer = c.CreateLabel();
        c.Label(ref handler);
        c.mov(r8, words);
        c.mov(__dword_ptr[r8 + News], 1);
        c.mov(edi, __dword_ptr[r8 + Event]);
        c.lea(rsi, __[r8 + One]);
        c.mov(edx, sizeof(ulong));
        c.mov(eax, (int)HostCallNumber.Write);
        c.syscall(); // Raw: errno of the interrupted code stays as it is.
        c.ret();
        c.Label(ref restorer);
        c.mov(eax, (int)HostCallNumber.RtSigreturn);
        c.syscall();
        var result = HostCode.Assemble(c);
        return (result.GetLabelRIP(handler), result.GetLabelRIP(restorer));
    }
}
