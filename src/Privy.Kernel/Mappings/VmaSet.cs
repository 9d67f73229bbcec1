namespace Privy.Kernel;

/// <summary>Searches a space's sorted array of mappings.</summary>
public static unsafe class VmaSet
{
    /// <summary>The mapping that holds <paramref name="address"/>, or null.</summary>
    public static Vma* Find(Space* space, ulong address)
    {
        int i = FirstEndingAfter(space, address);
        if (i == space->VmaCount)
            return null;
        Vma* vma = space->Vmas + i;
        return vma->Start <= address ? vma : null;
    }

    /// <summary>Index of the first mapping that ends above <paramref name="address"/>; the count when there is none.</summary>
    public static int FirstEndingAfter(Space* space, ulong address)
    {
        int low = 0;
        int high = space->VmaCount;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            if (space->Vmas[middle].End > address)
                high = middle;
            else
                low = middle + 1;
        }
        return low;
    }
}
