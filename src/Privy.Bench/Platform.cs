using System.Runtime.Versioning;

// Privy is for Linux only; this tells the analyzers so.
[assembly: SupportedOSPlatform("linux")]
