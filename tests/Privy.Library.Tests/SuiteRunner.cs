using System.Diagnostics;
using System.Reflection;

namespace Privy.Library.Tests;

/// <summary>
/// Runs the tests of some classes in this process: under <c>privy run</c> the usual test host would leave the virtual machine, as it starts a process of its own
/// for the tests.
/// </summary>
internal static class SuiteRunner
{
    internal static int Run(string[] classes)
    {
        int passed = 0;
        int failed = 0;
        int skipped = 0;
        foreach (Type type in typeof(SuiteRunner).Assembly.GetTypes().Where(t => t.IsPublic && classes.Contains(t.Name)).OrderBy(t => t.Name))
        {
            foreach (MethodInfo method in type.GetMethods().OrderBy(m => m.Name))
            {
                var fact = method.GetCustomAttribute<FactAttribute>();
                bool privileged = method.GetCustomAttribute<PrivilegedFactAttribute>() is not null;
                if (fact is null && !privileged)
                    continue;
                if ((privileged ? PrivilegedFactAttribute.Skip : fact?.Skip) is { } reason)
                {
                    skipped++;
                    Console.WriteLine($"skipped {type.Name}.{method.Name}: {reason}");
                    continue;
                }
                IEnumerable<object?[]> rows = fact is TheoryAttribute
                    ? method.GetCustomAttributes<InlineDataAttribute>().SelectMany(data => data.GetData(method))
                    : [[]];
                foreach (object?[] row in rows)
                {
                    long start = Stopwatch.GetTimestamp();
                    string name = $"{type.Name}.{method.Name}({string.Join(", ", row)})";
                    try
                    {
                        object test = Activator.CreateInstance(type)!;
                        using (test as IDisposable)
                            method.Invoke(test, [.. row.Select((value, i) => Convert.ChangeType(value, method.GetParameters()[i].ParameterType, null))]);
                        passed++;
                        Console.WriteLine($"passed {name} [{Stopwatch.GetElapsedTime(start).TotalSeconds:F1} s]");
                    }
                    catch (TargetInvocationException e)
                    {
                        failed++;
                        Console.WriteLine($"failed {name}: {e.InnerException}");
                    }
                }
            }
        }
        Console.WriteLine($"{Engine.Kind} engine: {passed} passed, {failed} failed, {skipped} skipped");
        return failed == 0 && passed > 0 ? 0 : 1;
    }
}
