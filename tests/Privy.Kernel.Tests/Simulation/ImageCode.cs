using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Privy.Hypervisor.Boot;

namespace Privy.Kernel.Tests.Simulation;

/// <summary>The image's machine code, linked by the hypervisor's loader and run in this process.</summary>
internal sealed unsafe class ImageCode : KernelCode
{
    private const int StubsSize = 4096;

    [ThreadStatic]
    private static VcpuArea* t_current;

    [ThreadStatic]
    private static ExceptionDispatchInfo? t_error;

    private readonly KernelImage _image;

    public ImageCode()
    {
        // Never freed: code of a test run.
        byte* memory = Machine.MapCode(1 << 20);
        var imports = new Dictionary<string, ulong>
        {
            // mov rax, imm64; jmp rax
            ["privy_doorbell_host"] = Stub(
                memory, 0, [0x48, 0xB8, .. BitConverter.GetBytes((ulong)(delegate* unmanaged<void>)&Doorbell), 0xFF, 0xE0]),
            // mov ecx, 512; rep movsq; ret
            ["privy_copy_page"] = Stub(memory, 64, [0xB9, 0, 2, 0, 0, 0xF3, 0x48, 0xA5, 0xC3]),
            // xor eax, eax; mov ecx, 512; rep stosq; ret
            ["privy_zero_page"] = Stub(memory, 128, [0x31, 0xC0, 0xB9, 0, 2, 0, 0, 0xF3, 0x48, 0xAB, 0xC3]),
            // mov rcx, rdx; rep movsq; mov eax, 1; ret
            ["privy_try_copy"] = Stub(memory, 256, [0x48, 0x89, 0xD1, 0xF3, 0x48, 0xA5, 0xB8, 1, 0, 0, 0, 0xC3]),
            // ud2: no fault of the simulation leaves its address to be guessed.
            ["privy_fs_base"] = Stub(memory, 288, [0x0F, 0x0B]),
            ["privy_gs_base"] = Stub(memory, 288, [0x0F, 0x0B]),
            // pause; ret
            ["privy_pause"] = Stub(memory, 192, [0xF3, 0x90, 0xC3]),
            // rdtsc; shl rdx, 32; or rax, rdx; ret
            ["privy_timestamp"] = Stub(memory, 224, [0x0F, 0x31, 0x48, 0xC1, 0xE2, 0x20, 0x48, 0x09, 0xD0, 0xC3]),
        };
        _image = KernelImage.Load((ulong)(memory + StubsSize), imports);
        _image.Bytes.CopyTo(new Span<byte>(memory + StubsSize, _image.Bytes.Length));
    }

    private static ulong Stub(byte* memory, int offset, ReadOnlySpan<byte> code)
    {
        code.CopyTo(new Span<byte>(memory + offset, code.Length));
        return (ulong)(memory + offset);
    }

    [UnmanagedCallersOnly]
    private static void Doorbell()
    {
        VcpuArea* current = t_current;
        try
        {
            Machine.Doorbell(current);
        }
        catch (Exception e)
        {
            // Nothing may unwind through the image; it ends with an error and the caller throws.
            t_error = ExceptionDispatchInfo.Capture(e);
            current->RequestResult = unchecked((ulong)-Errno.NoMemory);
        }
        t_current = current;
    }

    private static long Finish(VcpuArea* outer, long result)
    {
        t_current = outer;
        ExceptionDispatchInfo? error = t_error;
        t_error = null;
        error?.Throw();
        return result;
    }

    private static VcpuArea* Begin(VcpuArea* v)
    {
        VcpuArea* outer = t_current;
        t_current = v;
        return outer;
    }

    public override long PageFault(VcpuArea* v)
    {
        VcpuArea* outer = Begin(v);
        return Finish(outer, ((delegate* unmanaged<VcpuArea*, long>)_image.Symbol("privy_page_fault"))(v));
    }

    public override long CreateSnapshot(VcpuArea* v, int parentSpace) => WithSpace("privy_create_snapshot", v, parentSpace);

    public override long Release(VcpuArea* v, int space) => WithSpace("privy_release", v, space);

    public override long ClearAccessed(VcpuArea* v, int space) => WithSpace("privy_clear_accessed", v, space);

    public override long ForgetLinear(VcpuArea* v, int space) => WithSpace("privy_forget_linear", v, space);

    public override long Unmap(VcpuArea* v, int space, ulong start, ulong end) => WithRange("privy_unmap", v, space, start, end);

    public override long Protect(VcpuArea* v, int space, ulong start, ulong end) => WithRange("privy_protect", v, space, start, end);

    public override long PrepareWrite(VcpuArea* v, int space, ulong start, ulong end) =>
        WithRange("privy_prepare_write", v, space, start, end);

    public override long Detach(VcpuArea* v, ulong start, ulong end, byte* populated)
    {
        VcpuArea* outer = Begin(v);
        return Finish(
            outer,
            ((delegate* unmanaged<VcpuArea*, ulong, ulong, byte*, long>)_image.Symbol("privy_detach"))(v, start, end, populated));
    }

    public override long Precopy(VcpuArea* v, ulong start, ulong end) => WithAddresses("privy_precopy", v, start, end);

    public override long TakeView(VcpuArea* v, ulong start, ulong end) => WithAddresses("privy_take_view", v, start, end);

    public override long CloseView(VcpuArea* v, int space) => WithSpace("privy_close_view", v, space);

    public override long Changed(VcpuArea* v, ulong pair, ulong start, ulong end, ulong* bits)
    {
        VcpuArea* outer = Begin(v);
        return Finish(
            outer,
            ((delegate* unmanaged<VcpuArea*, ulong, ulong, ulong, ulong*, long>)_image.Symbol("privy_changed"))(v, pair, start, end, bits));
    }

    private long WithAddresses(string name, VcpuArea* v, ulong start, ulong end)
    {
        VcpuArea* outer = Begin(v);
        return Finish(outer, ((delegate* unmanaged<VcpuArea*, ulong, ulong, long>)_image.Symbol(name))(v, start, end));
    }

    private long WithSpace(string name, VcpuArea* v, int space)
    {
        VcpuArea* outer = Begin(v);
        return Finish(outer, ((delegate* unmanaged<VcpuArea*, int, long>)_image.Symbol(name))(v, space));
    }

    private long WithRange(string name, VcpuArea* v, int space, ulong start, ulong end)
    {
        VcpuArea* outer = Begin(v);
        return Finish(
            outer, ((delegate* unmanaged<VcpuArea*, int, ulong, ulong, long>)_image.Symbol(name))(v, space, start, end));
    }
}
