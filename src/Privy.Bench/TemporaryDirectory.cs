namespace Privy.Bench;

/// <summary>A directory of our own that goes away with everything in it.</summary>
internal sealed class TemporaryDirectory : IDisposable
{
    public TemporaryDirectory(string prefix, string? parent = null)
    {
        parent ??= System.IO.Path.GetTempPath();
        Path = System.IO.Path.Combine(parent, $"{prefix}{Environment.ProcessId}-{Guid.NewGuid():N}"[..(prefix.Length + 16)]);
        try
        {
            if (!Directory.Exists(parent)) throw new DirectoryNotFoundException();
            Directory.CreateDirectory(Path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BenchException($"no temporary directory can be made in {parent}; set TMPDIR to a directory that can be written", e);
        }
    }

    public string Path { get; }

    public void Dispose()
    {
        try
        {
            Directory.Delete(Path, recursive: true);
        }
        catch (IOException)
        {
            // A dying child may have created a file just now; once more is enough.
            Thread.Sleep(200);
            if (Directory.Exists(Path)) Directory.Delete(Path, recursive: true);
        }
    }
}
