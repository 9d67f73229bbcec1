using CsCheck;

namespace Privy.Kernel.Tests;

public sealed unsafe class VmaSetTests
{
    /// <summary>The binary search agrees with looking at every mapping.</summary>
    [Fact]
    public void Find_agrees_with_a_linear_search() =>
        Gen.Select(Gen.Int[1, 5].Array[0, 20], Gen.Int[0, 130]).Sample((steps, page) =>
        {
            // Alternately a gap and a mapping of so many pages; a gap of one page is none.
            Vma* vmas = stackalloc Vma[steps.Length];
            ulong at = 0x1000;
            int count = 0;
            for (int i = 0; i < steps.Length; i++)
            {
                ulong end = at + (ulong)(i % 2 == 0 ? steps[i] - 1 : steps[i]) * 4096;
                if (i % 2 == 1)
                    vmas[count++] = new Vma { Start = at, End = end };
                at = end;
            }
            var space = new Space { Vmas = vmas, VmaCount = count };
            ulong address = (ulong)page * 4096 + 17;
            Vma* expected = null;
            for (int i = 0; i < count; i++)
            {
                if (vmas[i].Start <= address && address < vmas[i].End)
                    expected = vmas + i;
            }
            return VmaSet.Find(&space, address) == expected;
        });
}
