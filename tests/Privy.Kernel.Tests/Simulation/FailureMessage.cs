using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace Privy.Kernel.Tests.Simulation;

/// <summary>An interpolated message that costs nothing while the condition holds.</summary>
[InterpolatedStringHandler]
internal ref struct FailureMessage
{
    private readonly StringBuilder? _text;

    public FailureMessage(int literalLength, int formattedCount, bool condition, out bool enabled)
    {
        enabled = !condition;
        _text = condition ? null : new StringBuilder();
    }

    public readonly void AppendLiteral(string text) => _text!.Append(text);

    public readonly void AppendFormatted<T>(T value) => _text!.Append(CultureInfo.InvariantCulture, $"{value}");

    public readonly void AppendFormatted<T>(T value, string format)
        where T : IFormattable => _text!.Append(value.ToString(format, CultureInfo.InvariantCulture));

    public override readonly string ToString() => _text?.ToString() ?? "";
}
