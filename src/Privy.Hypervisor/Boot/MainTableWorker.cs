namespace Privy.Hypervisor.Boot;

/// <summary>
/// A thread that shares the main process' descriptor table. What opens descriptors for the hypervisor runs on it, since the
/// threads of forked children have tables of their own.
/// </summary>
internal sealed class MainTableWorker
{
    private readonly object _monitor = new();
    private Action? _work;
    private bool _stopped;

    internal MainTableWorker() => new Thread(Loop, 256 * 1024) { IsBackground = true, Name = "privy-worker" }.Start();

    /// <summary>Runs a function on the worker and returns its result or throws its exception.</summary>
    internal T Run<T>(Func<T> function)
    {
        T result = default!;
        System.Runtime.ExceptionServices.ExceptionDispatchInfo? failure = null;
        var done = false;
        lock (_monitor)
        {
            while (_work is not null)
                Monitor.Wait(_monitor);
            _work = () =>
            {
                try
                {
                    result = function();
                }
                catch (Exception e)
                {
                    failure = System.Runtime.ExceptionServices.ExceptionDispatchInfo.Capture(e);
                }

                done = true;
            };
            Monitor.PulseAll(_monitor);
            while (!done)
                Monitor.Wait(_monitor);
        }

        failure?.Throw();
        return result;
    }

    /// <summary>Ends the thread.</summary>
    internal void Stop()
    {
        lock (_monitor)
        {
            _stopped = true;
            Monitor.PulseAll(_monitor);
        }
    }

    private void Loop()
    {
        lock (_monitor)
        {
            while (true)
            {
                while (_work is null)
                {
                    if (_stopped)
                        return;
                    Monitor.Wait(_monitor);
                }

                _work();
                _work = null;
                Monitor.PulseAll(_monitor);
            }
        }
    }
}
