using System.Runtime.InteropServices;

namespace Privy.Cli;

/// <summary>
/// Turns Ctrl-C, SIGTERM and SIGHUP into a cancelled token, so that servers that were started are stopped and their files removed
/// before the process ends with 128 + n. A second signal ends it at once.
/// </summary>
internal sealed class Interruption : IDisposable
{
    private readonly CancellationTokenSource _source = new();
    private readonly List<PosixSignalRegistration> _registrations = [];

    public Interruption()
    {
        foreach (var (signal, number) in (ReadOnlySpan<(PosixSignal, int)>)[(PosixSignal.SIGINT, 2), (PosixSignal.SIGTERM, 15), (PosixSignal.SIGHUP, 1)])
        {
            _registrations.Add(PosixSignalRegistration.Create(signal, context =>
            {
                if (_source.IsCancellationRequested) return;
                context.Cancel = true;
                ExitStatus = 128 + number;
                _source.Cancel();
            }));
        }
    }

    public CancellationToken Token => _source.Token;

    public int ExitStatus { get; private set; } = 130;

    public void Dispose()
    {
        foreach (var registration in _registrations) registration.Dispose();
        _source.Dispose();
    }
}
