// Clearing locals would use vector registers, which the kernel does not save.
[module: System.Runtime.CompilerServices.SkipLocalsInit]
