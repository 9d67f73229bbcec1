using System.Collections.Concurrent;
using System.Diagnostics;
using System.IO.MemoryMappedFiles;
using System.Linq.Expressions;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Privy.ManagedProgram;

/// <summary>One method a subject. Each throws if something is wrong.</summary>
internal static class Workloads
{
    private sealed class Node
    {
        public Node? Left, Right;
        public int Value;
        public byte[] Payload = [];
    }

    /// <summary>Garbage of all sizes on many threads, while others keep trees that must stay whole; full and compacting collections between.</summary>
    public static Task Memory()
    {
        const int threads = 6, rounds = 12;
        var sums = new long[threads];
        RunThreads(threads, index =>
        {
            var random = new Random(1000 + index);
            for (var round = 0; round < rounds; round++)
            {
                var root = Tree(12, ref sums[index]);
                var garbage = new List<byte[]>();
                for (var i = 0; i < 2000; i++)
                {
                    garbage.Add(new byte[random.Next(4) == 0 ? random.Next(200_000) : random.Next(500)]);
                    if (garbage.Count > 50)
                        garbage.RemoveRange(0, 25);
                }

                if (index == 0)
                    GC.Collect(2, GCCollectionMode.Forced, blocking: true, compacting: true);
                Check(Count(root) == 1 << 12, "a tree lost nodes");
            }
        });
        Console.WriteLine($"trees sum up to {sums.Sum()}");

        var weak = MakeWeak();
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Check(!weak.IsAlive, "an object without references is alive");
        var large = new long[8_000_000];
        for (var i = 0; i < large.Length; i += 512)
            large[i] = i;
        GC.Collect();
        long total = 0;
        for (var i = 0; i < large.Length; i += 512)
            total += large[i];
        Console.WriteLine($"large array: {total}");
        return Task.CompletedTask;
    }

    /// <summary>Exceptions that the processor raises, in managed code, on many threads.</summary>
    public static Task Exceptions()
    {
        var caught = new ConcurrentDictionary<string, int>();
        RunThreads(4, _ =>
        {
            for (var i = 0; i < 300; i++)
            {
                Catch(caught, () => Length(null));
                Catch(caught, () => Divide(1, i - i));
                Catch(caught, () => Element(new int[3], 3 + i));
                Catch(caught, () => (int)(object)"text");
                Catch(caught, () => throw new InvalidOperationException("own"));
            }
        });
        foreach (var (name, count) in caught.OrderBy(pair => pair.Key, StringComparer.Ordinal))
            Console.WriteLine($"{name} {count}");

        // A deep stack, and an exception through all of it.
        Catch(caught, () => Deep(5000));
        Console.WriteLine(caught.ContainsKey(nameof(NotSupportedException)) ? "through 5000 frames" : "lost");
        return Task.CompletedTask;
    }

    /// <summary>Child processes: output, input, exit status, environment, killing.</summary>
    public static async Task Processes()
    {
        for (var i = 0; i < 5; i++)
        {
            using var process = Start("/bin/sh", ["-c", $"read line; echo \"$line $GREETING\"; echo error >&2; exit {i}"]);
            await process.StandardInput.WriteLineAsync($"line {i}");
            process.StandardInput.Close();
            var output = await process.StandardOutput.ReadToEndAsync();
            var error = await process.StandardError.ReadToEndAsync();
            await process.WaitForExitAsync();
            Console.Write($"{output}{error}exit status {process.ExitCode}\n");
        }

        using (var sleeper = Start("/bin/sleep", ["1000"]))
        {
            Check(!sleeper.HasExited, "sleep has ended");
            sleeper.Kill();
            await sleeper.WaitForExitAsync();
            Console.WriteLine($"killed: {sleeper.ExitCode}");
        }

        using (var cat = Start("/bin/cat", []))
        {
            var text = string.Concat(Enumerable.Range(0, 20_000).Select(n => $"{n} "));
            var reading = cat.StandardOutput.ReadToEndAsync();
            await cat.StandardInput.WriteAsync(text);
            cat.StandardInput.Close();
            Check(await reading == text, "cat changed the text");
            await cat.WaitForExitAsync();
        }

        try
        {
            using var missing = Start("/does/not/exist", []);
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            Console.WriteLine($"error {e.NativeErrorCode}");
        }

        // Many at once.
        var codes = await Task.WhenAll(Enumerable.Range(0, 8).Select(async n =>
        {
            using var process = Start("/bin/sh", ["-c", $"exit {n * 3}"]);
            await process.WaitForExitAsync();
            return process.ExitCode;
        }));
        Console.WriteLine(string.Join(' ', codes));
    }

    /// <summary>Timers, delays, cancellation, clocks.</summary>
    public static async Task Timers()
    {
        var watch = Stopwatch.StartNew();
        var ticks = 0;
        var enough = new TaskCompletionSource();
        await using (new Timer(_ =>
        {
            if (Interlocked.Increment(ref ticks) == 5)
                enough.TrySetResult();
        }, null, 5, 5))
            await enough.Task;
        Check(watch.ElapsedMilliseconds >= 20, "five ticks of 5 ms took less than 20 ms");

        using var cancellation = new CancellationTokenSource(20);
        try
        {
            await Task.Delay(Timeout.Infinite, cancellation.Token);
        }
        catch (OperationCanceledException)
        {
            Console.WriteLine("cancelled");
        }

        using var periodic = new PeriodicTimer(TimeSpan.FromMilliseconds(3));
        for (var i = 0; i < 5; i++)
            Check(await periodic.WaitForNextTickAsync(), "a periodic timer has ended");
        var before = DateTime.UtcNow;
        Thread.Sleep(10);
        Check((DateTime.UtcNow - before).TotalMilliseconds >= 9, "Thread.Sleep(10) was shorter");
        using var gate = new ManualResetEventSlim();
        Check(!gate.Wait(10), "an event that nobody set");
        Check(!Monitor.TryEnter(Locked(), 10), "a lock that another thread holds");
    }

    /// <summary>TCP with many connections at once, UDP, Unix sockets.</summary>
    public static async Task Sockets()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var port = ((IPEndPoint)listener.LocalEndpoint).Port;
        const int clients = 40;
        var server = Task.WhenAll(Enumerable.Range(0, clients).Select(async _ =>
        {
            using var connection = await listener.AcceptTcpClientAsync();
            await connection.GetStream().CopyToAsync(connection.GetStream());
        }));
        var lengths = await Task.WhenAll(Enumerable.Range(0, clients).Select(async n =>
        {
            using var client = new TcpClient();
            await client.ConnectAsync(IPAddress.Loopback, port);
            var sent = Pattern(n, 50_000);
            var stream = client.GetStream();
            var writing = Task.Run(async () =>
            {
                await stream.WriteAsync(sent);
                client.Client.Shutdown(SocketShutdown.Send);
            });
            using var echoed = new MemoryStream();
            await stream.CopyToAsync(echoed);
            await writing;
            Check(echoed.ToArray().AsSpan().SequenceEqual(sent), "an echo differs");
            return echoed.Length;
        }));
        await server;
        Console.WriteLine($"{lengths.Sum()} bytes echoed");

        using var one = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        using var two = new UdpClient(new IPEndPoint(IPAddress.Loopback, 0));
        await one.SendAsync("datagram"u8.ToArray(), (IPEndPoint)two.Client.LocalEndPoint!);
        Console.WriteLine(Encoding.ASCII.GetString((await two.ReceiveAsync()).Buffer));

        var path = Path.Combine(Directory.GetCurrentDirectory(), "socket");
        using var accepting = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        accepting.Bind(new UnixDomainSocketEndPoint(path));
        accepting.Listen();
        using var connecting = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await connecting.ConnectAsync(new UnixDomainSocketEndPoint(path));
        using var accepted = await accepting.AcceptAsync();
        await connecting.SendAsync("by a path"u8.ToArray());
        var buffer = new byte[100];
        var length = await accepted.ReceiveAsync(buffer);
        Console.WriteLine(Encoding.ASCII.GetString(buffer, 0, length));
        File.Delete(path);
        try
        {
            using var refused = new TcpClient();
            listener.Stop();
            await refused.ConnectAsync(IPAddress.Loopback, port);
        }
        catch (SocketException e)
        {
            Console.WriteLine(e.SocketErrorCode);
        }
    }

    /// <summary>Files, folders, mapped files, watching, locks, pipes.</summary>
    public static async Task Files()
    {
        var folder = Directory.CreateDirectory("files-of-dotnet").FullName;
        var path = Path.Combine(folder, "file");
        var bytes = Pattern(7, 300_000);
        await File.WriteAllBytesAsync(path, bytes);
        Check((await File.ReadAllBytesAsync(path)).AsSpan().SequenceEqual(bytes), "a file differs");
        using (var mapped = MemoryMappedFile.CreateFromFile(path, FileMode.Open))
        using (var view = mapped.CreateViewAccessor())
        {
            Check(view.ReadByte(299_999) == bytes[299_999], "a mapped byte differs");
            view.Write(100, (byte)(bytes[100] ^ 0xff));
        }

        Check(File.ReadAllBytes(path)[100] == (byte)(bytes[100] ^ 0xff), "a write by a mapping is lost");
        try
        {
            using var first = new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
            using var second = new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException)
        {
            Console.WriteLine("locked");
        }

        using (var watcher = new FileSystemWatcher(folder))
        {
            var seen = new TaskCompletionSource<string?>();
            watcher.Created += (_, e) => seen.TrySetResult(e.Name);
            watcher.EnableRaisingEvents = true;
            File.WriteAllText(Path.Combine(folder, "new"), "text");
            Console.WriteLine($"created: {await seen.Task}");
        }

        using var sendingEnd = new System.IO.Pipes.AnonymousPipeServerStream(System.IO.Pipes.PipeDirection.Out);
        using var receivingEnd = new System.IO.Pipes.AnonymousPipeClientStream(System.IO.Pipes.PipeDirection.In, sendingEnd.ClientSafePipeHandle);
        var reading = Task.Run(() => receivingEnd.ReadByte());
        sendingEnd.WriteByte(77);
        Console.WriteLine($"pipe: {await reading}");
        Console.WriteLine(string.Join(' ', Directory.GetFiles(folder).Select(Path.GetFileName).Order(StringComparer.Ordinal)));
        Directory.Delete(folder, recursive: true);
    }

    /// <summary>Locks, thread pool, parallel loops, interlocked counters, thread-local state.</summary>
    public static async Task Threads()
    {
        var gate = new Lock();
        long plain = 0, interlocked = 0;
        RunThreads(8, _ =>
        {
            for (var i = 0; i < 20_000; i++)
            {
                lock (gate)
                    plain++;
                Interlocked.Increment(ref interlocked);
            }
        });
        Console.WriteLine($"{plain} {interlocked}");

        var squares = new long[100_000];
        Parallel.For(0, squares.Length, i => squares[i] = (long)i * i);
        Console.WriteLine(squares.AsParallel().Where(square => square % 3 == 0).Sum());

        var queue = new BlockingCollection<int>(16);
        var consumers = Enumerable.Range(0, 3).Select(_ => Task.Run(() => queue.GetConsumingEnumerable().Sum(n => (long)n))).ToArray();
        for (var i = 0; i < 5000; i++)
            queue.Add(i);
        queue.CompleteAdding();
        Console.WriteLine((await Task.WhenAll(consumers)).Sum());

        using var local = new ThreadLocal<int>(() => 5, trackAllValues: true);
        RunThreads(5, index => local.Value += index);
        Console.WriteLine(local.Values.Sum());
        RunThreads(100, _ => Thread.Yield());
    }

    /// <summary>Signals of the process, handled in managed code.</summary>
    public static async Task Signals()
    {
        var seen = new TaskCompletionSource<PosixSignal>();
        using (PosixSignalRegistration.Create(PosixSignal.SIGHUP, context =>
        {
            context.Cancel = true;
            seen.TrySetResult(context.Signal);
        }))
        {
            using var kill = Start("/bin/sh", ["-c", $"kill -HUP {Environment.ProcessId}"]);
            await kill.WaitForExitAsync();
            Console.WriteLine(await seen.Task);
        }
    }

    /// <summary>Code made at run time, generics and reflection: the just-in-time compiler at work on several threads, and code that is compiled again.</summary>
    public static Task Code()
    {
        var results = new long[4];
        RunThreads(results.Length, index =>
        {
            for (var i = 0; i < 30; i++)
            {
                var x = Expression.Parameter(typeof(long));
                var function = Expression.Lambda<Func<long, long>>(Expression.Add(Expression.Multiply(x, Expression.Constant((long)i)), Expression.Constant(7L)), x).Compile();
                for (long n = 0; n < 2000; n++)
                    results[index] += function(n);
            }
        });
        Check(results.All(result => result == results[0]), "threads disagree");
        Console.WriteLine(results[0]);
        foreach (var type in new[] { typeof(int), typeof(long), typeof(double), typeof(Guid), typeof(DateTime), typeof(decimal) })
            Console.WriteLine(((Array)Activator.CreateInstance(type.MakeArrayType(), 3)!).GetType());
        // Long enough that hot loops are replaced while they run.
        double sum = 0;
        for (var i = 1; i < 30_000_000; i++)
            sum += 1.0 / i;
        Console.WriteLine(sum.ToString("F6", System.Globalization.CultureInfo.InvariantCulture));
        return Task.CompletedTask;
    }

    private static void RunThreads(int count, Action<int> body)
    {
        var failures = new ConcurrentQueue<Exception>();
        var threads = Enumerable.Range(0, count).Select(index => new Thread(() =>
        {
            try
            {
                body(index);
            }
#pragma warning disable CA1031 // whatever it is, the main thread reports it
            catch (Exception e)
#pragma warning restore CA1031
            {
                failures.Enqueue(e);
            }
        })).ToArray();
        foreach (var thread in threads)
            thread.Start();
        foreach (var thread in threads)
            thread.Join();
        if (!failures.IsEmpty)
            throw new AggregateException(failures);
    }

    private static Node Tree(int depth, ref long sum)
    {
        var node = new Node { Value = depth, Payload = new byte[depth] };
        sum += depth;
        if (depth > 1)
        {
            node.Left = Tree(depth - 1, ref sum);
            node.Right = Tree(depth - 1, ref sum);
        }

        return node;
    }

    private static int Count(Node? node) => node is null ? 1 : Count(node.Left) + Count(node.Right);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static WeakReference MakeWeak() => new(new Node());

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int Length(string? text) => text!.Length;

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int Divide(int a, int b) => a / b;

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int Element(int[] array, int index) => array[index];

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int Deep(int frames) => frames == 0 ? throw new NotSupportedException("deep") : Deep(frames - 1) + 1;

    private static void Catch(ConcurrentDictionary<string, int> caught, Func<int> body)
    {
        try
        {
            _ = body();
        }
#pragma warning disable CA1031 // the kind of exception is what is counted
        catch (Exception e)
#pragma warning restore CA1031
        {
            caught.AddOrUpdate(e.GetType().Name, 1, (_, count) => count + 1);
        }
    }

    private static Process Start(string program, string[] arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        foreach (var argument in arguments)
            start.ArgumentList.Add(argument);
        start.Environment["GREETING"] = "hello";
        return Process.Start(start) ?? throw new InvalidOperationException("not started");
    }

    private static object Locked()
    {
        var locked = new object();
        using var taken = new ManualResetEventSlim();
        new Thread(() =>
        {
            lock (locked)
            {
                taken.Set();
                Thread.Sleep(Timeout.Infinite);
            }
        }) { IsBackground = true }.Start();
        taken.Wait();
        return locked;
    }

    private static byte[] Pattern(int seed, int length)
    {
        var bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private static void Check(bool condition, string otherwise)
    {
        if (!condition)
            throw new InvalidOperationException(otherwise);
    }
}
