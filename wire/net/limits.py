"""Checks before the start that this machine's limits on open files, processes and threads suffice.

Without this check ZeroMQ aborts the process when it cannot create a thread or a descriptor. Later shortages are not
checked.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

from msd.wire.errors import UsageError
from msd.wire.net.sockets import raise_descriptor_limit

CGROUPS = Path("/sys/fs/cgroup")
#: The limits of the whole machine on processes and threads.
KERNEL_LIMITS = (Path("/proc/sys/kernel/threads-max"), Path("/proc/sys/kernel/pid_max"))
#: No limit that leaves this many processes and threads is tested. It is much more than are needed, because a container
#: may not see all that count.
FAR_AWAY = 1000
#: A small stack, so that the probe needs hardly any address space.
_STACK_SIZE = 128 << 10


def require(files: int, threads: int, purpose: str) -> None:
    """Raises the limit on open files as far as possible. Raises ``UsageError`` if this process may not open ``files``
    files, or if fewer than ``threads`` processes and threads can be started; ``purpose`` needs them.
    """
    raise_descriptor_limit()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < files:
        problem = f"the limit on open files is {limit}, but {purpose} need at least {files}"
        raise UsageError(f"{problem}: raise it with ulimit, or LimitNOFILE of the service")
    # The calling thread is one of them.
    if not _are_limits_far_away() and not _can_start(threads - 1):
        raise UsageError(f"{purpose} need {threads} processes and threads: {_process_limit(threads)}")


def _are_limits_far_away() -> bool:
    """True if it is not necessary to start threads, which takes 1 ms, and several on a busy machine."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
        limits = [int(path.read_text()) for path in KERNEL_LIMITS]
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
        rooms = [*(limit - running for limit in limits), *(limit - current for _, limit, current in _cgroup_limits())]
    except (OSError, ValueError, IndexError):
        return False
    return min(rooms) >= FAR_AWAY


def _can_start(count: int) -> bool:
    """Starts ``count`` threads and ends them again: the only way to know about every limit that applies."""
    done = threading.Event()
    started = []
    stack_size = threading.stack_size(_STACK_SIZE)
    try:
        for _ in range(count):
            thread = threading.Thread(target=done.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        threading.stack_size(stack_size)
        done.set()
        for thread in started:
            thread.join()
    return True


def _process_limit(needed: int) -> str:
    """Names the limit on processes and threads that leaves the fewest, and the value that it needs."""
    limits = []
    own = len(os.listdir("/proc/self/task"))
    for group, limit, current in _cgroup_limits():
        # A thread that has just ended may still be listed, but no longer counted.
        others = max(0, current - own)
        text = f"pids.max in {group} is {limit} and must be at least {others + needed}"
        limits.append((limit - others, text))
    if limits and min(limits)[0] < needed:
        return min(limits)[1]
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY:
        return f"the limit of this user is {soft}: raise it with ulimit, or end other programs"
    return "this machine cannot start as many: end other programs"


def _cgroup_limits() -> Iterator[tuple[Path, int, int]]:
    """Yields each cgroup that limits the processes and threads of this process, its limit and how many there are."""
    for group in _pids_groups(Path("/proc/self/cgroup").read_text()):
        try:
            limit = (group / "pids.max").read_text().strip()
            current = int((group / "pids.current").read_text())
        except OSError:
            continue
        if limit != "max":
            yield group, int(limit), current


def _pids_groups(memberships: str) -> Iterator[Path]:
    """Yields the cgroups that may limit the processes of a process with these lines of ``/proc/PID/cgroup``."""
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        root = CGROUPS / "pids" if controllers else CGROUPS
        group = root / path.lstrip("/")
        yield from [group, *group.parents[: len(group.relative_to(root).parts)]]
