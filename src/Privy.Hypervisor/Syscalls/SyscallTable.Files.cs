using static Privy.Hypervisor.Syscalls.SyscallNumber;

namespace Privy.Hypervisor.Syscalls;

public static partial class SyscallTable
{
    private const int PathMax = 4096;
    private const int AttributeNameMax = 256;
    private const int AttributeMax = 65536;
    private const int NoFollow = 0x20000;          // O_NOFOLLOW
    private const int AtNoFollow = 0x100;          // AT_SYMLINK_NOFOLLOW

    private static ArgumentDescription OpenFlags => Value(ValueFormat.OpenFlags);

    /// <summary>O_CLOEXEC and O_NONBLOCK, without an access mode.</summary>
    private static ArgumentDescription CreateFlags => Value(ValueFormat.CreateFlags);

    private static ArgumentDescription AtFlags => Value(ValueFormat.AtFlags);

    private static ArgumentDescription AccessMode => Value(ValueFormat.AccessMode);

    private static ArgumentDescription StatOut => Out(KernelStructSize.Stat, MemoryFormat.Stat);

    private static void DescribeFiles(SyscallDescription?[] c)
    {
        Host(c, read, Fd, DataOut(2), Size);
        Sends(c, write, -1, Fd, DataIn(2), Size);
        Host(c, pread64, Fd, DataOut(2), Size, Long);
        Sends(c, pwrite64, -1, Fd, DataIn(2), Size, Long);
        Host(c, readv, Fd, VectorOut(2), Size);
        Sends(c, writev, -1, Fd, VectorIn(2), Size);
        Host(c, preadv, Fd, VectorOut(2), Size, Long, Long);
        Sends(c, pwritev, -1, Fd, VectorIn(2), Size, Long, Long);
        Host(c, preadv2, Fd, VectorOut(2), Size, Long, Long, Hex);
        Sends(c, pwritev2, -1, Fd, VectorIn(2), Size, Long, Long, Hex);

        Host(c, open, PathFollowedUnless(1, NoFollow), OpenFlags, Mode);
        Host(c, openat, Fd, PathFollowedUnless(2, NoFollow), OpenFlags, Mode);
        Host(c, openat2, Fd, PathFollowed, BufferIn(3, LengthSource.Argument, 4096), Size);
        Host(c, creat, PathFollowed, Mode);
        Add(c, new SyscallDescription(close, nameof(close), SyscallRoute.Host, [Fd]) { Restart = RestartRule.Never });
        Host(c, close_range, Int, Int, Hex);
        Host(c, lseek, Fd, Long, Value(ValueFormat.Whence));
        Host(c, dup, Fd);
        Host(c, dup2, Fd, Fd);
        Host(c, dup3, Fd, Fd, CreateFlags);
        Add(c, new SyscallDescription(fcntl, nameof(fcntl), SyscallRoute.Host, [Fd, Value(ValueFormat.FcntlCommand), Hex])
        {
            CommandArgument = 1, VariantTable = CreateFcntlCommands(),
        });
        Add(c, new SyscallDescription(ioctl, nameof(ioctl), SyscallRoute.Host, [Fd, Value(ValueFormat.IoctlRequest), Hex])
        {
            CommandArgument = 1, VariantTable = CreateIoctlRequests(),
        });
        Host(c, flock, Fd, Value(ValueFormat.LockOperation));

        Host(c, fstat, Fd, StatOut);
        Host(c, stat, PathFollowed, StatOut);
        Host(c, lstat, Path, StatOut);
        Host(c, newfstatat, Fd, PathFollowedUnless(3, AtNoFollow), StatOut, AtFlags);
        Host(c, statx, Fd, PathFollowedUnless(2, AtNoFollow), AtFlags, Hex, Out(KernelStructSize.Statx));
        Host(c, statfs, PathFollowed, Out(KernelStructSize.Statfs));
        Host(c, fstatfs, Fd, Out(KernelStructSize.Statfs));
        Host(c, access, PathFollowed, AccessMode);
        Host(c, faccessat, Fd, PathFollowed, AccessMode);
        Host(c, faccessat2, Fd, PathFollowedUnless(3, AtNoFollow), AccessMode, AtFlags);
        Host(c, getdents, Fd, BytesOut(2, LengthSource.IntArgument, 16 << 20), Int);
        Host(c, getdents64, Fd, BytesOut(2, LengthSource.IntArgument, 16 << 20), Int);
        Host(c, readlink, Path, BytesOut(2, LengthSource.IntArgument, 1 << 20, MemoryFormat.Text), Int);
        Host(c, readlinkat, Fd, Path, BytesOut(3, LengthSource.IntArgument, 1 << 20, MemoryFormat.Text), Int);

        Host(c, rename, Path, Path);
        Host(c, renameat, Fd, Path, Fd, Path);
        Host(c, renameat2, Fd, Path, Fd, Path, Hex);
        Host(c, link, Path, Path);
        Host(c, linkat, Fd, Path, Fd, Path, AtFlags);
        Host(c, symlink, Text(PathMax), Path);
        Host(c, symlinkat, Text(PathMax), Fd, Path);
        Host(c, unlink, Path);
        Host(c, unlinkat, Fd, Path, AtFlags);
        Host(c, mkdir, Path, Mode);
        Host(c, mkdirat, Fd, Path, Mode);
        Host(c, rmdir, Path);
        Host(c, mknod, Path, Mode, Hex);
        Host(c, mknodat, Fd, Path, Mode, Hex);
        Host(c, chmod, PathFollowed, Mode);
        Host(c, fchmod, Fd, Mode);
        Host(c, fchmodat, Fd, PathFollowed, Mode);
        Host(c, fchmodat2, Fd, PathFollowedUnless(3, AtNoFollow), Mode, AtFlags);
        Host(c, chown, PathFollowed, Int, Int);
        Host(c, fchown, Fd, Int, Int);
        Host(c, lchown, Path, Int, Int);
        Host(c, fchownat, Fd, PathFollowedUnless(4, AtNoFollow), Int, Int, AtFlags);
        Host(c, truncate, PathFollowed, Long);
        Host(c, ftruncate, Fd, Long);
        Host(c, fallocate, Fd, Hex, Long, Long);
        Host(c, fadvise64, Fd, Long, Long, Int);
        Host(c, readahead, Fd, Long, Size);
        Host(c, cachestat, Fd, In(KernelStructSize.CachestatRange), Out(KernelStructSize.Cachestat), Hex);
        Host(c, fsync, Fd);
        Host(c, fdatasync, Fd);
        Host(c, sync);
        Host(c, syncfs, Fd);
        Host(c, sync_file_range, Fd, Long, Long, Hex);
        Sends(c, sendfile, -1, Fd, Fd, InOut(8, MemoryFormat.Long), Size);
        Sends(c, splice, -1, Fd, InOut(8, MemoryFormat.Long), Fd, InOut(8, MemoryFormat.Long), Size, Hex);
        Sends(c, tee, -1, Fd, Fd, Size, Hex);
        Host(c, copy_file_range, Fd, InOut(8, MemoryFormat.Long), Fd, InOut(8, MemoryFormat.Long), Size, Hex);
        Host(c, utime, PathFollowed, In(KernelStructSize.Utimbuf));
        Host(c, utimes, PathFollowed, In(2 * KernelStructSize.Timeval));
        Host(c, futimesat, Fd, PathFollowed, In(2 * KernelStructSize.Timeval));
        Host(c, utimensat, Fd, PathFollowedUnless(3, AtNoFollow), In(2 * KernelStructSize.Timespec), AtFlags);

        Host(c, chdir, PathFollowed);
        Host(c, fchdir, Fd);
        Host(c, chroot, PathFollowed);
        Host(c, getcwd, BytesOut(1, LengthSource.Argument, 1 << 20, MemoryFormat.Text), Size);
        Host(c, umask, Mode);

        Host(c, setxattr, PathFollowed, Text(AttributeNameMax), BufferIn(3, LengthSource.Argument, AttributeMax), Size, Hex);
        Host(c, lsetxattr, Path, Text(AttributeNameMax), BufferIn(3, LengthSource.Argument, AttributeMax), Size, Hex);
        Host(c, fsetxattr, Fd, Text(AttributeNameMax), BufferIn(3, LengthSource.Argument, AttributeMax), Size, Hex);
        Host(c, getxattr, PathFollowed, Text(AttributeNameMax), BytesOut(3, LengthSource.Argument, AttributeMax), Size);
        Host(c, lgetxattr, Path, Text(AttributeNameMax), BytesOut(3, LengthSource.Argument, AttributeMax), Size);
        Host(c, fgetxattr, Fd, Text(AttributeNameMax), BytesOut(3, LengthSource.Argument, AttributeMax), Size);
        Host(c, listxattr, PathFollowed, BytesOut(2, LengthSource.Argument, AttributeMax), Size);
        Host(c, llistxattr, Path, BytesOut(2, LengthSource.Argument, AttributeMax), Size);
        Host(c, flistxattr, Fd, BytesOut(2, LengthSource.Argument, AttributeMax), Size);
        Host(c, removexattr, PathFollowed, Text(AttributeNameMax));
        Host(c, lremovexattr, Path, Text(AttributeNameMax));
        Host(c, fremovexattr, Fd, Text(AttributeNameMax));

        Host(c, memfd_create, Text(250), Hex);
        Host(c, inotify_init);
        Host(c, inotify_init1, CreateFlags);
        Host(c, inotify_add_watch, Fd, PathFollowed, Hex);
        Host(c, inotify_rm_watch, Fd, Int);

        Host(c, mq_open, Text(256), OpenFlags, Mode, In(KernelStructSize.MqAttr));
        Host(c, mq_unlink, Text(256));
        Host(c, mq_timedsend, Fd, BufferIn(2, LengthSource.Argument, 16 << 20), Size, Int, TimespecIn);
        Host(c, mq_timedreceive, Fd, BytesOut(2, LengthSource.Argument, 16 << 20), Size, Out(4), TimespecIn);
        Host(c, mq_getsetattr, Fd, In(KernelStructSize.MqAttr), Out(KernelStructSize.MqAttr));
    }

    private static Dictionary<uint, SyscallDescription> CreateFcntlCommands()
    {
        var variants = new Dictionary<uint, SyscallDescription>();
        var command = Value(ValueFormat.FcntlCommand);
        var @lock = InOut(KernelStructSize.Flock);

        void With(uint value, ArgumentDescription argument) => variants.Add(value, Variant(fcntl, SyscallRoute.Host, Fd, command, argument));
        void Without(uint value) => variants.Add(value, Variant(fcntl, SyscallRoute.Host, Fd, command));

        With(0, Int);                                // F_DUPFD: the lowest free number, which a reserved one never is
        Without(1);                                  // F_GETFD
        With(2, Value(ValueFormat.DescriptorFlags)); // F_SETFD
        Without(3);                                  // F_GETFL
        With(4, OpenFlags);                          // F_SETFL
        With(5, @lock);                              // F_GETLK
        With(6, In(KernelStructSize.Flock));         // F_SETLK
        With(7, In(KernelStructSize.Flock));         // F_SETLKW
        With(8, Int);                                // F_SETOWN: without O_ASYNC (see SyscallDispatcher) it sends nothing
        Without(9);                                  // F_GETOWN
        Without(11);                                 // F_GETSIG
        With(15, In(KernelStructSize.FOwnerEx));     // F_SETOWN_EX
        With(16, Out(KernelStructSize.FOwnerEx));    // F_GETOWN_EX
        With(36, @lock);                             // F_OFD_GETLK
        With(37, In(KernelStructSize.Flock));        // F_OFD_SETLK
        With(38, In(KernelStructSize.Flock));        // F_OFD_SETLKW
        Without(1025);                               // F_GETLEASE
        With(1027, Fd);                              // F_DUPFD_QUERY
        Without(1028);                               // F_CREATED_QUERY
        With(1030, Int);                             // F_DUPFD_CLOEXEC
        With(1031, Int);                             // F_SETPIPE_SZ
        Without(1032);                               // F_GETPIPE_SZ
        With(1033, Hex);                             // F_ADD_SEALS
        Without(1034);                               // F_GET_SEALS
        With(1035, Out(8, MemoryFormat.Long));       // F_GET_RW_HINT
        With(1036, In(8, MemoryFormat.Long));        // F_SET_RW_HINT
        With(1037, Out(8, MemoryFormat.Long));       // F_GET_FILE_RW_HINT
        With(1038, In(8, MemoryFormat.Long));        // F_SET_FILE_RW_HINT
        return variants;
    }

    private static Dictionary<uint, SyscallDescription> CreateIoctlRequests()
    {
        var variants = new Dictionary<uint, SyscallDescription>();
        var request = Value(ValueFormat.IoctlRequest);

        void With(ArgumentDescription argument, params ReadOnlySpan<uint> values)
        {
            foreach (var value in values) variants.Add(value, Variant(ioctl, SyscallRoute.Host, Fd, request, argument));
        }

        // Terminals (asm-generic/ioctls.h).
        With(Out(KernelStructSize.Termios), 0x5401, 0x5456);                          // TCGETS TIOCGLCKTRMIOS
        With(In(KernelStructSize.Termios), 0x5402, 0x5403, 0x5404, 0x5457);           // TCSETS TCSETSW TCSETSF TIOCSLCKTRMIOS
        With(Out(KernelStructSize.Termio), 0x5405);                                   // TCGETA
        With(In(KernelStructSize.Termio), 0x5406, 0x5407, 0x5408);                    // TCSETA TCSETAW TCSETAF
        With(Out(KernelStructSize.Termios2), 0x802C542A);                             // TCGETS2
        With(In(KernelStructSize.Termios2), 0x402C542B, 0x402C542C, 0x402C542D);      // TCSETS2 TCSETSW2 TCSETSF2
        With(Int, 0x5409, 0x540A, 0x540B, 0x5425);                                    // TCSBRK TCXONC TCFLSH TCSBRKP
        With(Int, 0x540C, 0x540D, 0x540E, 0x5422, 0x5427, 0x5428);                    // TIOCEXCL TIOCNXCL TIOCSCTTY TIOCNOTTY TIOCSBRK TIOCCBRK
        With(Out(4, MemoryFormat.Int), 0x540F, 0x5411, 0x5415, 0x5419, 0x5424, 0x5429); // TIOCGPGRP TIOCOUTQ TIOCMGET TIOCGSOFTCAR TIOCGETD TIOCGSID
        With(In(4, MemoryFormat.Int), 0x5410, 0x5416, 0x5417, 0x5418, 0x541A, 0x5420, 0x5423); // TIOCSPGRP TIOCMBIS TIOCMBIC TIOCMSET TIOCSSOFTCAR TIOCPKT TIOCSETD
        With(Out(KernelStructSize.Winsize), 0x5413);                                  // TIOCGWINSZ
        With(In(KernelStructSize.Winsize), 0x5414);                                   // TIOCSWINSZ
        With(Out(4, MemoryFormat.Int), 0x80045430, 0x80045432, 0x80045438, 0x80045439, 0x80045440); // TIOCGPTN TIOCGDEV TIOCGPKT TIOCGPTLCK TIOCGEXCL
        With(In(4, MemoryFormat.Int), 0x40045431);                                    // TIOCSPTLCK
        With(OpenFlags, 0x5441);                                                      // TIOCGPTPEER

        // Any file. FIOASYNC is not here: SIGIO would hit the host process.
        With(Out(4, MemoryFormat.Int), 0x541B);                                       // FIONREAD
        With(In(4, MemoryFormat.Int), 0x5421);                                        // FIONBIO
        With(Int, 0x5450, 0x5451);                                                    // FIONCLEX FIOCLEX
        With(Out(8, MemoryFormat.Long), 0x5460);                                      // FIOQSIZE
        With(Out(4, MemoryFormat.Int), 0x00000002);                                   // FIGETBSZ
        With(InOut(4, MemoryFormat.Int), 0x00000001);                                 // FIBMAP
        With(Fd, 0x40049409);                                                         // FICLONE
        With(In(32), 0x4020940D);                                                     // FICLONERANGE
        With(Out(4, MemoryFormat.Int), 0x80086601, 0x80087601);                       // FS_IOC_GETFLAGS FS_IOC_GETVERSION: long in the number, int in the kernel
        With(In(4, MemoryFormat.Int), 0x40086602, 0x40087602);                        // FS_IOC_SETFLAGS FS_IOC_SETVERSION
        With(Out(28), 0x801C581F);                                                    // FS_IOC_FSGETXATTR
        With(In(28), 0x401C5820);                                                     // FS_IOC_FSSETXATTR

        // Block devices (linux/fs.h).
        With(Out(8, MemoryFormat.Long), 0x80081272, 0x1260);                          // BLKGETSIZE64 BLKGETSIZE
        With(Out(4, MemoryFormat.Int), 0x1268, 0x127B, 0x1278, 0x1279, 0x125E);       // BLKSSZGET BLKPBSZGET BLKIOMIN BLKIOOPT BLKROGET
        With(Out(8, MemoryFormat.Long), 0x1263);                                      // BLKRAGET

        // Sockets (asm-generic/sockios.h, linux/sockios.h).
        With(In(4, MemoryFormat.Int), 0x8901, 0x8902);                                // FIOSETOWN SIOCSPGRP
        With(Out(4, MemoryFormat.Int), 0x8903, 0x8904, 0x8905, 0x894B);               // FIOGETOWN SIOCGPGRP SIOCATMARK SIOCOUTQNSD
        With(Out(KernelStructSize.Timeval), 0x8906, 0x8907, 0x80108906, 0x80108907);  // SIOCGSTAMP*
        With(InOut(KernelStructSize.Ifreq), 0x8910, 0x8913, 0x8915, 0x8917, 0x8919, 0x891B, 0x891D, 0x8921, 0x8927, 0x8933, 0x8942, 0x8970); // SIOCGIF{NAME,FLAGS,ADDR,DSTADDR,BRDADDR,NETMASK,METRIC,MTU,HWADDR,INDEX} SIOCGIFTXQLEN SIOCGIFMAP
        With(InOut(KernelStructSize.Ifreq), 0x8914, 0x8916, 0x8918, 0x891A, 0x891C, 0x891E, 0x8922, 0x8924, 0x8943); // their setters
        With(InOut(KernelStructSize.Arpreq), 0x8954);                                 // SIOCGARP
        With(InOut(KernelStructSize.Ifconf), 0x8912);                                 // SIOCGIFCONF: its buffer is staged by SyscallDispatcher

        // Random numbers, timers of files.
        With(Out(4, MemoryFormat.Int), 0x80045200);                                   // RNDGETENTCNT
        With(In(8, MemoryFormat.Long), 0x40085400);                                   // TFD_IOC_SET_TICKS
        return variants;
    }
}
