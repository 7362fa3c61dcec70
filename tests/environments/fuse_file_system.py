"""A FUSE file system that shows a folder, without some of what file systems usually have.

``python -m tests.environments.fuse_file_system FOLDER MOUNT_POINT LACKING…`` mounts it, which only root can do, prints
a line and serves until standard input is closed. Speaks the kernel's protocol itself, so no library is needed.

LACKING is any of: ``change-time`` (the change time is the modification time), ``locks``, ``links``, ``sync`` (of
files), ``folder-sync``, ``space`` (its size is unknown), ``stable-inodes``, ``long-names`` (143 bytes at most),
``modes`` (all files have the same one), ``fine-times`` (times are even seconds). While FOLDER has a file ``.silent``,
no read of a file is answered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

#: The requests of the kernel (linux/fuse.h).
LOOKUP, FORGET, GETATTR, SETATTR, UNLINK, RENAME, LINK, OPEN, READ, WRITE = 1, 2, 3, 4, 10, 12, 13, 14, 15, 16
STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = 17, 18, 20, 25, 26, 27, 28, 29, 30
SETLK, SETLKW, CREATE, INTERRUPT, BATCH_FORGET, RENAME2, LSEEK = 32, 33, 35, 36, 42, 45, 46
UNANSWERED = {FORGET, BATCH_FORGET, INTERRUPT}
#: Flags of the answer to ``INIT``: the kernel sends BSD locks, and writes of more than a page.
FLOCK_LOCKS, BIG_WRITES, MAX_PAGES = 1 << 10, 1 << 5, 1 << 22
MAX_WRITE = 1 << 20
#: Flags of ``SETATTR``.
SET_MODE, SET_SIZE, SET_ATIME, SET_MTIME, SET_ATIME_NOW, SET_MTIME_NOW = 1, 8, 16, 32, 128, 256


class FileSystem:
    def __init__(self, folder: Path, lacking: set[str]) -> None:
        self._lacking = lacking
        self._silent = folder / ".silent"
        #: A path of each node that stays valid when the file is renamed or removed; node 1 is the root.
        self._paths: dict[int, str] = {1: _lasting_path(str(folder))}
        self._inodes = 1 << 20
        self._handlers: dict[int, Callable[[int, bytes], bytes]] = {
            INIT: self._init,
            LOOKUP: lambda node, data: self._entry(self._path(node, data)),
            GETATTR: lambda node, data: struct.pack("=QII", 0, 0, 0) + self._attributes(os.stat(self._paths[node])),
            SETATTR: self._set_attributes,
            CREATE: self._create,
            OPEN: lambda node, data: self._open(node, struct.unpack_from("=I", data)[0]),
            READ: lambda node, data: os.pread(*self._read_arguments(data)),
            WRITE: self._write,
            STATFS: self._statfs,
            UNLINK: self._unlink,
            RENAME: lambda node, data: self._rename(node, data, 8),
            RENAME2: lambda node, data: self._rename(node, data, 16),
            LINK: self._link,
            FLUSH: lambda node, data: b"",
            RELEASE: self._release,
            FSYNC: lambda node, data: self._unless_lacking("sync", errno.EINVAL),
            FSYNCDIR: lambda node, data: self._unless_lacking("folder-sync", errno.EINVAL),
            SETLK: lambda node, data: self._unless_lacking("locks", errno.ENOLCK),
            SETLKW: lambda node, data: self._unless_lacking("locks", errno.ENOLCK),
            OPENDIR: lambda node, data: struct.pack("=QII", 0, 0, 0),
            READDIR: self._read_folder,
            RELEASEDIR: lambda node, data: b"",
        }

    def serve(self, device: int) -> None:
        while 0 not in (ready := select.select([0, device], [], [])[0]):
            assert ready
            request = os.read(device, MAX_WRITE + (1 << 16))
            _, operation, unique, node = struct.unpack_from("=IIQQ", request)
            if operation in UNANSWERED or (operation == READ and self._silent.exists()):
                continue
            error, answer = 0, b""
            try:
                handler = self._handlers.get(operation)
                if handler is None:
                    raise OSError(errno.ENOSYS, "")
                answer = handler(node, request[40:])
            except OSError as raised:
                error = raised.errno or errno.EIO
            os.write(device, struct.pack("=IiQ", 16 + len(answer), -error, unique) + answer)

    def _init(self, _: int, data: bytes) -> bytes:
        _, minor = struct.unpack_from("=II", data)
        flags = BIG_WRITES | MAX_PAGES | (FLOCK_LOCKS if "locks" in self._lacking else 0)
        limits = struct.pack("=HHIIHHI", 16, 12, MAX_WRITE, 1, 256, 0, 0)
        return struct.pack("=IIII", 7, min(minor, 31), 1 << 16, flags) + limits + bytes(28)

    def _unless_lacking(self, what: str, error: int) -> bytes:
        if what in self._lacking:
            raise OSError(error, "")
        return b""

    def _path(self, node: int, data: bytes) -> str:
        name = os.fsdecode(data.split(b"\0", 1)[0])
        if "long-names" in self._lacking and len(os.fsencode(name)) > 143:
            raise OSError(errno.ENAMETOOLONG, "")
        return os.path.join(self._paths[node], name)

    def _attributes(self, status: os.stat_result) -> bytes:
        inode = status.st_ino
        if "stable-inodes" in self._lacking:
            self._inodes += 1
            inode = self._inodes
        changed = status.st_mtime_ns if "change-time" in self._lacking else status.st_ctime_ns
        times = [divmod(time, 10**9) for time in (status.st_atime_ns, status.st_mtime_ns, changed)]
        if "fine-times" in self._lacking:
            times = [(seconds - seconds % 2, 0) for seconds, _ in times]
        mode = status.st_mode
        if "modes" in self._lacking:
            mode = stat.S_IFMT(mode) | 0o700
        numbers = (mode, status.st_nlink, status.st_uid, status.st_gid, 0, 4096, 0)
        return struct.pack(
            "=6Q10I",
            *(inode, status.st_size, status.st_blocks),
            *(seconds for seconds, _ in times),
            *(rest for _, rest in times),
            *numbers,
        )

    def _entry(self, path: str) -> bytes:
        status = os.lstat(path)
        node = status.st_ino + 1
        if node not in self._paths:
            self._paths[node] = _lasting_path(path)
        return struct.pack("=4Q2I", node, 0, 0, 0, 0, 0) + self._attributes(status)

    def _open(self, node: int, flags: int) -> bytes:
        # The kernel has checked the rights and truncated the file.
        fd = os.open(self._paths[node], flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW))
        return struct.pack("=QII", fd, 0, 0)

    def _create(self, node: int, data: bytes) -> bytes:
        flags, mode = struct.unpack_from("=II", data)
        path = self._path(node, data[16:])
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | (flags & os.O_EXCL), mode & 0o7777))
        entry = self._entry(path)
        return entry + self._open(struct.unpack_from("=Q", entry)[0], flags)

    @staticmethod
    def _read_arguments(data: bytes) -> tuple[int, int, int]:
        fd, offset, size = struct.unpack_from("=QQI", data)
        return fd, size, offset

    def _write(self, _: int, data: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("=QQI", data)
        return struct.pack("=II", os.pwrite(fd, data[40 : 40 + size], offset), 0)

    def _set_attributes(self, node: int, data: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_rest, mtime_rest, _, mode = struct.unpack_from(
            "=IIQQQQQQIIII", data
        )
        path = self._paths[node]
        if valid & SET_SIZE:
            os.truncate(path, size)
        if valid & SET_MODE:
            self._unless_lacking("modes", errno.EPERM)
            os.chmod(path, mode & 0o7777)
        if valid & (SET_ATIME | SET_MTIME) and valid & (SET_ATIME_NOW | SET_MTIME_NOW):
            os.utime(path)
        elif valid & (SET_ATIME | SET_MTIME):
            os.utime(path, ns=(atime * 10**9 + atime_rest, mtime * 10**9 + mtime_rest))
        return struct.pack("=QII", 0, 0, 0) + self._attributes(os.stat(path))

    def _statfs(self, *_: object) -> bytes:
        blocks = 0 if "space" in self._lacking else 1 << 30
        return struct.pack("=5Q4I", blocks, blocks, blocks, blocks, blocks, 4096, 255, 4096, 0) + bytes(24)

    def _unlink(self, node: int, data: bytes) -> bytes:
        os.unlink(self._path(node, data))
        return b""

    @staticmethod
    def _release(_: int, data: bytes) -> bytes:
        os.close(struct.unpack_from("=Q", data)[0])
        return b""

    def _rename(self, node: int, data: bytes, header: int) -> bytes:
        (new_folder,) = struct.unpack_from("=Q", data)
        old, new = data[header:].split(b"\0")[:2]
        source, target = self._path(node, old + b"\0"), self._path(new_folder, new + b"\0")
        os.rename(source, target)
        return b""

    def _link(self, node: int, data: bytes) -> bytes:
        self._unless_lacking("links", errno.EPERM)
        (source,) = struct.unpack_from("=Q", data)
        path = self._path(node, data[8:])
        # With a descriptor of a folder, Python passes on that the link in /proc is to be followed.
        os.link(self._paths[source], path, src_dir_fd=0, follow_symlinks=True)
        return self._entry(path)

    def _read_folder(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", data)
        answer = b""
        for position, name in enumerate(sorted(os.listdir(self._paths[node]))[offset:], offset + 1):
            encoded = os.fsencode(name)
            status = os.lstat(os.path.join(self._paths[node], name))
            entry = struct.pack("=QQII", status.st_ino, position, len(encoded), status.st_mode >> 12) + encoded
            entry += bytes(-len(entry) % 8)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer


def _lasting_path(path: str) -> str:
    return f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_NOFOLLOW)}"


def main() -> None:
    folder, mount_point, *lacking = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"msd-test", os.fsencode(mount_point), b"fuse", 0, options.encode()) != 0:
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    print("mounted", flush=True)
    FileSystem(Path(folder), {*lacking}).serve(device)


if __name__ == "__main__":
    main()
