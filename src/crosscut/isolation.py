"""What the kernel holds back from a process that handles a file from outside: rlimits, Landlock, seccomp.

`confine` works on the calling process and cannot be undone. rlimits exist everywhere; Landlock (Linux 5.13) takes away
the file system, TCP and signals to others; the seccomp filter (Linux, x86_64 and aarch64) takes away programs,
processes, sockets and, unless paths were granted, every call that opens or changes a file by name. Threads stay
possible: decoders and x264 need them.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import resource
import signal
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LIBC = ctypes.CDLL(None, use_errno=True)

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38

# include/uapi/linux/landlock.h; the numbers of the calls are the same on every architecture
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION = 1
_LANDLOCK_PATH_BENEATH = 1
_FS_READ_FILE, _FS_READ_DIR = 1 << 2, 1 << 3
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many file rights each ABI knows (the highest here counts for all later ones)."""
_NET_RIGHTS_TCP = 0b11
_SCOPE_SOCKETS_AND_SIGNALS = 0b11

# include/uapi/linux/seccomp.h, bpf_common.h, audit.h
_SECCOMP_MODE_FILTER = 2
_SECCOMP_GET_ACTION_AVAIL = 2
_KILL_PROCESS, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
_X32_CALLS = 0x4000_0000
_CLONE_THREAD = 0x0001_0000

_MACHINES = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
"""machine -> (column in the tables below, AUDIT_ARCH value)."""

# Call numbers: x86_64 from arch/x86/entry/syscalls/syscall_64.tbl, aarch64 from include/uapi/asm-generic/unistd.h;
# None where the architecture never had the call.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    # sockets
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # programs, processes, other processes' memory, limits
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "kill": (62, 129),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117), "kcmp": (312, 272),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "setrlimit": (160, 164), "unshare": (272, 97), "setns": (308, 268),
    "personality": (135, 92), "modify_ldt": (154, None),
    # the kernel's wide surfaces
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "fanotify_init": (300, 262), "inotify_init": (253, None), "inotify_init1": (294, 26),
    # administration
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58), "iopl": (172, None),
    "ioperm": (173, None), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
}  # fmt: skip
_FILE_CALLS: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None),
    "mkdirat": (258, 34), "rmdir": (84, None), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "lchown": (94, None), "fchownat": (260, 54), "truncate": (76, 45),
    "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "removexattr": (197, 14), "lremovexattr": (198, 15),
}  # fmt: skip
_CLONE, _CLONE3, _PRLIMIT, _TGKILL, _SECCOMP = (56, 220), (435, 435), (302, 261), (234, 131), (317, 277)


def available() -> tuple[str, ...]:
    """What this machine offers, strongest last: `("limits", "landlock 7", "seccomp")` is all there is."""
    found = ["limits"]
    if landlock_version():
        found.append(f"landlock {landlock_version()}")
    if seccomp_available():
        found.append("seccomp")
    return tuple(found)


@functools.cache
def landlock_version() -> int:
    """The Landlock ABI of the running kernel, 0 where it is missing or switched off."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_LANDLOCK_CREATE_RULESET, 0, 0, _LANDLOCK_VERSION))


@functools.cache
def seccomp_available() -> bool:
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return False
    column, _ = _MACHINES[platform.machine()]
    action = ctypes.c_uint32(_ERRNO)
    return _syscall(_SECCOMP[column], _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.addressof(action)) == 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, the single-threaded process that forked it, is gone."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, *_longs(signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def confine(
    *, memory_bytes: int, cpu_seconds: int, file_bytes: int, open_files: int, read_paths: Sequence[str] = ()
) -> None:
    """Give up, for good, everything but the open file descriptors, the memory and the time named here.

    Everything the machine offers is applied and must succeed: OSError otherwise. Call it while single-threaded, with
    all modules imported. `read_paths` (files or folders, with all below) stay readable.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, cpu_seconds, grace=5)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, open_files)
    if sys.platform != "linux":
        return  # macOS accepts no useful RLIMIT_AS
    _limit(resource.RLIMIT_AS, memory_bytes)
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, *_longs(1, 0, 0, 0)))
    if landlock_version():
        _restrict_files(landlock_version(), read_paths)
    if seccomp_available():
        _filter_calls(files=bool(read_paths))


def _limit(kind: int, value: int, grace: int = 0) -> None:
    """Set soft and hard limit, never above the hard limit there is; `grace` keeps the hard one behind the soft one."""
    _, ceiling = resource.getrlimit(kind)
    hard = value + grace if ceiling == resource.RLIM_INFINITY else min(value + grace, ceiling)
    resource.setrlimit(kind, (min(value, hard), hard))


def _restrict_files(version: int, read_paths: Sequence[str]) -> None:
    rights = (1 << _FS_RIGHTS.get(version, max(_FS_RIGHTS.values()))) - 1
    network = _NET_RIGHTS_TCP if version >= 4 else 0
    scope = _SCOPE_SOCKETS_AND_SIGNALS if version >= 6 else 0
    rules = ctypes.create_string_buffer(struct.pack("=QQQ", rights, network, scope), 24)
    ruleset = _check(_syscall(_LANDLOCK_CREATE_RULESET, ctypes.addressof(rules), 24, 0))
    for path in read_paths:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = _FS_READ_FILE | _FS_READ_DIR if os.path.isdir(path) else _FS_READ_FILE  # noqa: PTH112
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, folder), 12)
        _check(_syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, ctypes.addressof(rule), 0))
        os.close(folder)
    _check(_syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _filter_calls(*, files: bool) -> None:
    column, architecture = _MACHINES[platform.machine()]
    program = b"".join(struct.pack("=HBBI", *step) for step in _program(column, architecture, files=files))
    steps = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(steps)))
    _check(_LIBC.prctl(_PR_SET_SECCOMP, *_longs(_SECCOMP_MODE_FILTER, ctypes.addressof(header), 0, 0)))


def _program(column: int, architecture: int, *, files: bool) -> Iterator[tuple[int, int, int, int]]:
    """A classic BPF program over `struct seccomp_data`; each step is (code, jump if true, jump if false, operand)."""
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    allow = (_RETURN, 0, 0, _ALLOW)
    yield (_LOAD, 0, 0, _AT_ARCHITECTURE)
    yield (_EQUAL, 1, 0, architecture)
    yield (_RETURN, 0, 0, _KILL_PROCESS)
    yield (_LOAD, 0, 0, _AT_NUMBER)
    yield (_AT_LEAST, 0, 1, _X32_CALLS)
    yield refuse
    for numbers in (_CALLS if files else _CALLS | _FILE_CALLS).values():
        if (number := numbers[column]) is not None:
            yield (_EQUAL, 0, 1, number)
            yield refuse
    # glibc falls back to clone, whose flags a filter can read: threads yes, processes no
    yield (_EQUAL, 0, 1, _CLONE3[column])
    yield (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    yield (_EQUAL, 0, 4, _CLONE[column])
    yield (_LOAD, 0, 0, _AT_ARGUMENTS)
    yield (_ANY_BIT, 0, 1, _CLONE_THREAD)
    yield allow
    yield refuse
    # abort() signals the own process
    yield (_EQUAL, 0, 4, _TGKILL[column])
    yield (_LOAD, 0, 0, _AT_ARGUMENTS)
    yield (_EQUAL, 0, 1, os.getpid())
    yield allow
    yield refuse
    # getrlimit() is prlimit64 without a new limit; root could raise its own
    yield (_EQUAL, 0, 5, _PRLIMIT[column])
    yield (_LOAD, 0, 0, _AT_ARGUMENTS + 2 * 8)
    yield (_EQUAL, 0, 2, 0)
    yield (_LOAD, 0, 0, _AT_ARGUMENTS + 2 * 8 + 4)
    yield (_EQUAL, 1, 0, 0)
    yield refuse
    yield allow


def _syscall(number: int, *arguments: int) -> int:
    return int(_LIBC.syscall(*_longs(number, *arguments)))


def _longs(*values: int) -> tuple[ctypes.c_long, ...]:
    """Variadic C functions read whole registers; a plain int would only set half of one."""
    return tuple(ctypes.c_long(value) for value in values)


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
