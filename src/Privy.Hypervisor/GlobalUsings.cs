global using Errno = Privy.Hypervisor.Host.Errno;
