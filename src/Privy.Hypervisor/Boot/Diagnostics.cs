using System.Globalization;
using System.Text;
using Privy.Kernel;

namespace Privy.Hypervisor.Boot;

/// <summary>Describes a vCPU for the report of a defect of Privy itself.</summary>
internal static unsafe class Diagnostics
{
    internal static string Describe(Vcpu vcpu)
    {
        var text = new StringBuilder();
        var r = vcpu.Cpu.Registers;
        text.AppendLine(CultureInfo.InvariantCulture, $"vCPU {vcpu.Area->Index} in space {vcpu.Area->Space}:");
        text.AppendLine(CultureInfo.InvariantCulture, $"  rip {r.Rip:x16} rflags {r.Rflags:x8}");
        text.AppendLine(CultureInfo.InvariantCulture, $"  rax {r.Rax:x16} rbx {r.Rbx:x16} rcx {r.Rcx:x16} rdx {r.Rdx:x16}");
        text.AppendLine(CultureInfo.InvariantCulture, $"  rsi {r.Rsi:x16} rdi {r.Rdi:x16} rsp {r.Rsp:x16} rbp {r.Rbp:x16}");
        text.AppendLine(CultureInfo.InvariantCulture, $"  r8  {r.R8:x16} r9  {r.R9:x16} r10 {r.R10:x16} r11 {r.R11:x16}");
        text.AppendLine(CultureInfo.InvariantCulture, $"  r12 {r.R12:x16} r13 {r.R13:x16} r14 {r.R14:x16} r15 {r.R15:x16}");
        var trap = vcpu.Area->Trap;
        text.AppendLine(CultureInfo.InvariantCulture, $"  last trap: rip {trap->Rip:x} cr2 {trap->Cr2:x} error {trap->Error:x} rsp {trap->Rsp:x}; request {vcpu.Area->Request} (0x{vcpu.Area->RequestArg0:x}, 0x{vcpu.Area->RequestArg1:x})");
        try
        {
            var s = vcpu.Cpu.GetSystemRegisters();
            text.AppendLine(CultureInfo.InvariantCulture, $"  cs {s.Cs.Selector:x} ss {s.Ss.Selector:x} fs {s.Fs.Base:x} cr0 {s.Cr0:x} cr2 {s.Cr2:x} cr3 {s.Cr3:x} cr4 {s.Cr4:x} efer {s.Efer:x}");
        }
        catch (Kvm.KvmException e)
        {
            text.AppendLine(e.Message);
        }

        DescribeRoots(text, vcpu);
        vcpu.Log.Describe(text);
        return text.ToString();
    }

    /// <summary>
    /// Which tables the vCPU ran on. After a shutdown (triple fault) AMD's KVM has reset the vCPU, so the host's own words are all there is; a kernel half that is not
    /// the template's would be the reason for it.
    /// </summary>
    private static void DescribeRoots(StringBuilder text, Vcpu vcpu)
    {
        var state = vcpu.Area->Kernel;
        text.Append(CultureInfo.InvariantCulture, $"  cr3 set {vcpu.RootSet:x}, for root {vcpu.Area->LoadedRoot:x}");
        if ((uint)vcpu.Area->Space < Layout.MaxSpaces)
            text.Append(CultureInfo.InvariantCulture, $"; the space has {state->Spaces[vcpu.Area->Space].Root:x} and {state->Spaces[vcpu.Area->Space].AliasRoot:x}");
        var template = Table(state, state->TemplateRoot);
        var root = vcpu.RootSet - state->KernelPhysical < state->TableEnd - state->KernelBase ? Table(state, vcpu.RootSet) : template;
        for (var i = 0; i < (int)Entry.Count; i++)
        {
            // Accessed and Dirty are the processor's.
            const ulong own = ~(Entry.Accessed | Entry.Dirty);
            if (template[i] != 0 && ((template[i] ^ root[i]) & own) != 0)
                text.Append(CultureInfo.InvariantCulture, $"; entry {i} is {root[i]:x}, not {template[i]:x}");
        }

        text.AppendLine();
        text.AppendLine(CultureInfo.InvariantCulture, $"  pending exception {vcpu.Cpu.PendingException}; flush pending {vcpu.Area->FlushPending}, exit request {vcpu.Area->ExitRequest}, in guest {vcpu.Area->InGuest}");
    }

    private static ulong* Table(KernelState* state, ulong physical) => (ulong*)(physical - state->KernelPhysical + state->KernelBase);
}
