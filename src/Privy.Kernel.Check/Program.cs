using Iced.Intel;
using Privy.Hypervisor.Boot;

// What the hypervisor's loader can link; everything else must be in the object.
string[] imports = ["privy_doorbell_host", "privy_copy_page", "privy_zero_page", "privy_pause", "privy_try_copy", "privy_timestamp", "privy_fs_base", "privy_gs_base"];

// The library's resident code calls nothing outside of itself, and runs on threads whose registers the system saves.
bool resident = args.Length == 2 && args[1] == "--no-imports";
if (args.Length != 1 && !resident)
{
    Console.Error.WriteLine("usage: Privy.Kernel.Check <object file> [--no-imports]");
    return 2;
}
if (resident)
    imports = [];

var problems = new List<string>();
var elf = new ElfObject(File.ReadAllBytes(args[0]));

foreach (ElfSymbol symbol in elf.Symbols)
{
    // A static initialiser ilc could not evaluate: nothing would ever run the constructor, the fields would stay 0.
    if (symbol.Name.Contains("___cctor", StringComparison.Ordinal))
        problems.Add($"static constructor: {symbol.Name}");
    // Methods that must expand to one instruction; compiled as methods they are endless loops.
    if (symbol.Name.Contains("_Interlocked__", StringComparison.Ordinal) || symbol.Name.Contains("_Volatile__", StringComparison.Ordinal))
        problems.Add($"not expanded in line: {symbol.Name}");
    // Array bounds, divisions and the like would end in an endless loop.
    if (symbol.Name.Contains("ThrowHelpers", StringComparison.Ordinal))
        problems.Add($"code that may throw: {symbol.Name}");
    if (symbol.Name.Length != 0 && symbol.Section == 0 && !imports.Contains(symbol.Name))
        problems.Add($"unresolved symbol: {symbol.Name}");
}

int functions = 0;
foreach (ElfSymbol symbol in elf.Symbols)
{
    if (symbol.Type != ElfObject.SymbolFunction || symbol.Section == 0 || symbol.Size == 0)
        continue;
    ElfSection section = elf.Sections[symbol.Section];
    functions++;
    var decoder = Decoder.Create(64, elf.Content(section).Slice((int)symbol.Value, (int)symbol.Size).ToArray());
    var info = new InstructionInfoFactory();
    while (decoder.IP < symbol.Size)
    {
        Instruction instruction = decoder.Decode();
        if (instruction.IsInvalid)
        {
            problems.Add($"{symbol.Name}+0x{instruction.IP:x}: not an instruction");
            break;
        }
        if (resident)
            continue;
        // The page-fault stub does not save the program's vector and x87 state.
        foreach (UsedRegister used in info.GetInfo(instruction).GetUsedRegisters())
        {
            if (used.Register.IsVectorRegister() || used.Register.IsST() || used.Register.IsMM() || used.Register.IsK())
                problems.Add($"{symbol.Name}+0x{instruction.IP:x}: {instruction} uses {used.Register}");
        }
    }
}
if (functions == 0)
    problems.Add("no functions found");

foreach (string problem in problems)
    Console.Error.WriteLine($"error : {(resident ? "resident code" : "kernel image")}: {problem}");
return problems.Count == 0 ? 0 : 1;
