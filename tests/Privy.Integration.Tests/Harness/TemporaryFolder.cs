namespace Privy.Integration.Tests;

/// <summary>A new folder that goes away with this object.</summary>
public sealed class TemporaryFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("privy-test-").FullName;

    public static implicit operator string(TemporaryFolder folder) => folder.Path;

    public void Dispose()
    {
        try
        {
            Directory.Delete(Path, recursive: true);
        }
        catch (IOException)
        {
            // a process on its way out may still be writing; /tmp is cleaned by the system
        }
        catch (UnauthorizedAccessException)
        {
        }
    }
}
