namespace Privy.Library.Tests;

/// <summary>What this assembly does as a program: <c>--run CLASS...</c> runs tests, <c>--stress MINUTES</c> is <see cref="Stress"/>; with a folder it is a database that writes checkpoints until it is killed.</summary>
internal static class Program
{
    internal const int Length = 128 * SnapshotRegion.PageSize;

    private static int Main(string[] arguments)
    {
        if (arguments is ["--run", .. string[] classes])
            return SuiteRunner.Run(classes);
        if (arguments is ["--stress", var minutes])
            return RunStress(minutes);
        using SnapshotRegion region = SnapshotRegion.Create(Length, new() { AllowCopying = true });
        using var checkpointer = new Checkpointer(region, arguments[0], new() { IncrementsPerFull = 5 });
        RestoredCheckpoint restored = checkpointer.Restore();
        long number = restored.Number;
        // What it restores must be a state that was; it goes on from there.
        Check(region, number);
        Console.WriteLine($"restored {number}, {region.Engine} engine");
        while (true)
        {
            Step(region, number + 1);
            Checkpoint written = checkpointer.Write();
            number++;
            if (written.Number != number)
            {
                Console.WriteLine($"checkpoint {written.Number} in place of {number}");
                return 1;
            }
            Console.WriteLine($"committed {number}");
        }
    }

    private static int RunStress(string minutes)
    {
        if (!double.TryParse(minutes, System.Globalization.CultureInfo.InvariantCulture, out double length) || length <= 0)
        {
            Console.Error.WriteLine($"'{minutes}' is not a number of minutes.");
            return 2;
        }
        new Stress(Random.Shared.Next(), TimeSpan.FromMinutes(length)).Run(Console.WriteLine);
        Console.WriteLine("Nothing went wrong.");
        return 0;
    }

    /// <summary>Makes the state that checkpoint <paramref name="number"/> has of the state of the one before: a few pages change.</summary>
    internal static void Step(SnapshotRegion region, long number)
    {
        var random = new Random64((ulong)number);
        if (number == 1)
            region.AsSpan<byte>(0, Length).Fill(0xee);
        for (int i = 0; i < 12; i++)
        {
            int page = random.Below(Length / SnapshotRegion.PageSize);
            Span<ulong> words = region.AsSpan<ulong>((long)page * SnapshotRegion.PageSize, SnapshotRegion.PageSize / 8);
            // Sometimes a page becomes empty again: a full checkpoint leaves it out.
            ulong value = i == 11 ? 0 : random.Next();
            for (int word = 0; word < words.Length; word++)
                words[word] = value == 0 ? 0 : value + (ulong)word;
        }
        region.AsSpan<long>(0, 1)[0] = number;
    }

    internal static void Check(SnapshotRegion region, long number)
    {
        using SnapshotRegion expected = SnapshotRegion.Create(Length, new() { AllowCopying = true });
        for (long n = 1; n <= number; n++)
            Step(expected, n);
        if (!region.AsSpan<byte>(0, Length).SequenceEqual(expected.AsSpan<byte>(0, Length)))
            throw new InvalidDataException($"The region is not in the state of checkpoint {number}; its first word is {region.AsSpan<long>(0, 1)[0]}.");
    }
}
