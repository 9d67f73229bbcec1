using System.Globalization;

namespace Privy.Bench.Framework;

/// <summary>Arguments of measured programs.</summary>
internal static class Arguments
{
    /// <summary>"name=value" for each pair.</summary>
    public static string[] Of(params ReadOnlySpan<(string Name, object Value)> pairs)
    {
        var words = new string[pairs.Length];
        for (var i = 0; i < words.Length; i++) words[i] = string.Create(CultureInfo.InvariantCulture, $"{pairs[i].Name}={pairs[i].Value}");
        return words;
    }
}
