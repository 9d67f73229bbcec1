using System.Globalization;

namespace Privy.Hypervisor.Syscalls;

/// <summary>/proc/PID/stat and status of a forked child: what its host thread shows, with the ids that the program knows.</summary>
internal static class ProcessReport
{
    /// <summary>Puts the ids into the text of stat (proc_pid_stat(5)): before and behind the name, which may contain anything.</summary>
    internal static string Stat(string text, int process, int parent, int group, int session)
    {
        const int state = 0, fields = 4;
        var nameBegin = text.IndexOf('(', StringComparison.Ordinal);
        var nameEnd = text.LastIndexOf(')') + 2;
        var rest = nameBegin < 0 || nameEnd > text.Length ? [] : text[nameEnd..].Split(' ', fields + 1);
        return rest.Length <= fields
            ? text
            : string.Create(CultureInfo.InvariantCulture, $"{process} {text[nameBegin..nameEnd]}{rest[state]} {parent} {group} {session} {rest[fields]}");
    }

    /// <summary>Puts the ids into the text of status (proc_pid_status(5)).</summary>
    internal static string Status(string text, int process, int parent)
    {
        var lines = text.Split('\n');
        for (var i = 0; i < lines.Length; i++)
        {
            var value = lines[i].Split(':', 2)[0] switch
            {
                "Tgid" or "Pid" => process,
                "PPid" => parent,
                _ => -1,
            };
            if (value >= 0)
                lines[i] = string.Create(CultureInfo.InvariantCulture, $"{lines[i].Split(':', 2)[0]}:\t{value}");
        }

        return string.Join('\n', lines);
    }
}
