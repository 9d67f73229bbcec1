using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text;

namespace Privy.Kvm.Tests;

/// <summary>The structs and numbers of Privy.Kvm are the kernel's.</summary>
public class HeaderTests
{
    [Fact]
    public void Structs_and_numbers_are_those_of_the_kernels_interface()
    {
        var wrong = HeaderFacts.All.Where(f => f.Value != f.Plain).Select(f => $"{f.Ours} is {f.Value}, {f.Header} is {f.Plain}");
        Assert.Empty(wrong);
    }

    [HeaderFact]
    public void Structs_and_numbers_are_those_of_this_machines_headers()
    {
        var values = Evaluate(HeaderFacts.All.Select(f => f.Header));
        var wrong = HeaderFacts.All.Where(f => f.Value != values[f.Header]).Select(f => $"{f.Ours} is {f.Value}, {f.Header} is {values[f.Header]}");
        Assert.Empty(wrong);
    }

    /// <summary>A struct field, ioctl, capability or exit that is added later must be compared as well.</summary>
    [Fact]
    public void Nothing_is_left_out_of_the_comparison()
    {
        var compared = HeaderFacts.All.Select(f => f.Ours).ToHashSet();
        var assembly = typeof(KvmSystem).Assembly;
        var structs = assembly.GetTypes()
            .Where(t => t is { IsValueType: true, IsEnum: false, IsNested: false, Namespace: "Privy.Kvm" } && t.GetCustomAttribute<CompilerGeneratedAttribute>() is null)
            .SelectMany(t => t.GetFields(BindingFlags.Instance | BindingFlags.Public).Select(f => $"{t.Name}.{f.Name}"));
        var numbers = new[] { typeof(KvmIoctl), typeof(KvmExit) }
            .SelectMany(t => t.GetFields(BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic).Where(f => f.IsLiteral).Select(f => $"{t.Name}.{f.Name}"));
        var enums = new[] { typeof(KvmCapability), typeof(SyncSets) }.SelectMany(t => Enum.GetNames(t).Select(n => $"{t.Name}.{n}"));
        Assert.Empty(structs.Concat(numbers).Concat(enums).Except(compared));
    }

    /// <summary>The values of C expressions, by a program that prints them.</summary>
    private static Dictionary<string, ulong> Evaluate(IEnumerable<string> expressions)
    {
        var source = new StringBuilder("""
            #define _GNU_SOURCE
            #include <fcntl.h>
            #include <linux/kvm.h>
            #include <stddef.h>
            #include <stdio.h>
            #include <sys/ioctl.h>
            #include <sys/mman.h>
            #define SHOW(text, expression) printf("%llu\t%s\n", (unsigned long long)(expression), text)
            int main(void)
            {

            """);
        foreach (var expression in expressions.Distinct())
            source.Append(CultureInfo.InvariantCulture, $"    SHOW(\"{expression}\", {expression});\n");
        source.Append("    return 0;\n}\n");

        var folder = Directory.CreateTempSubdirectory("privy-kvm-header-").FullName;
        try
        {
            var program = Path.Combine(folder, "values");
            File.WriteAllText(program + ".c", source.ToString());
            _ = Run(HeaderFactAttribute.Compiler!, "-o", program, program + ".c");
            return Run(program).Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split('\t'))
                .ToDictionary(parts => parts[1], parts => ulong.Parse(parts[0], CultureInfo.InvariantCulture));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string Run(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} ended with {process.ExitCode}: {errors.Result}");
        return output;
    }
}
