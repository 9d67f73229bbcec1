namespace Privy.Library.Tests;

/// <summary>The package works in a project that knows nothing of this repository, and its README's example does what it says.</summary>
public sealed class PackageTests
{
    [EngineFact]
    public void The_readme_example_runs_from_the_package()
    {
        string folder = Directory.CreateTempSubdirectory("privy-package").FullName;
        try
        {
            string dotnet = Environment.ProcessPath!;
            string readme = File.ReadAllText(Path.Combine(Harness.Root, "src", "Privy", "README.md"));
            string example = readme.Split("```csharp\n")[1].Split("```")[0];
            Assert.InRange(example.Trim().Split('\n').Count(line => line.Length > 0), 8, 10);

            string configuration = AppContext.BaseDirectory.Contains("/debug", StringComparison.Ordinal) ? "Debug" : "Release";
            Harness.Run(dotnet, Harness.Root, "pack", "src/Privy", "-c", configuration, "--no-build", "-o", folder, "-p:Version=0.0.1-test", "-v", "quiet");
            string console = Path.Combine(folder, "console");
            Directory.CreateDirectory(console);
            // A feed with this one package: it may not need any other. A cache of its own, so that no earlier one is used.
            File.WriteAllText(Path.Combine(console, "nuget.config"), $"""
                <configuration>
                  <packageSources><clear /><add key="local" value="{folder}" /></packageSources>
                  <config><add key="globalPackagesFolder" value="{folder}/cache" /></config>
                </configuration>
                """);
            File.WriteAllText(Path.Combine(console, "console.csproj"), """
                <Project Sdk="Microsoft.NET.Sdk">
                  <PropertyGroup>
                    <OutputType>Exe</OutputType>
                    <TargetFramework>net10.0</TargetFramework>
                    <ImplicitUsings>enable</ImplicitUsings>
                    <Nullable>enable</Nullable>
                  </PropertyGroup>
                </Project>
                """);
            File.WriteAllText(Path.Combine(console, "Program.cs"), example);
            Harness.Run(dotnet, console, "add", "package", "Privy", "--version", "0.0.1-test");
            string output = Harness.Run(dotnet, console, "run");
            string engine = SnapshotRegion.IsAvailable(SnapshotEngine.Privileged, out _) ? "Privileged" : "Portable";
            Assert.Equal(["then 42, now 43", $"checkpoint 1, {engine} engine"], output.Trim().Split('\n'));
            if (PrivyRun.Missing is not null)
                return;
            Directory.Delete(Path.Combine(console, "checkpoints"), recursive: true);
            output = Harness.Run(PrivyRun.Cli!, console, "run", "--", dotnet, Directory.GetFiles(Path.Combine(console, "bin"), "console.dll", SearchOption.AllDirectories).Single());
            Assert.Equal(["then 42, now 43", "checkpoint 1, Privileged engine"], output.Trim().Split('\n'));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
