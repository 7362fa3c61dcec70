"""10,000 files of 10 KiB in one session, fetched into memory and verified, beside rclone and rsync.

rclone copies them over HTTP with 32 transfers from ``rclone serve http``, rsync from its daemon; both write to a folder
in memory and verify nothing but the sizes. All times are those of whole processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from socket import socket

from bench import ours
from bench.bounds import Bound, conclude, ratios
from bench.measuring import memory_folder, run_interleaved, seconds
from bench.ours import RunningServers
from tests.processes import free_ports, wait_for

FILES, SIZE = 10_000, 10 << 10
ROUNDS = 5


def run() -> None:
    with memory_folder() as folder, ExitStack() as stack:
        tree = folder / "tree"
        for number in range(FILES):
            path = tree / f"{number // 100:03}" / f"{number:05}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(SIZE))
        servers = stack.enter_context(ours.serving(tree, folder / "home"))
        files, size, requests = fetch(servers)
        assert (files, size) == (FILES, FILES * SIZE), "not all files arrived"
        cases = {"msd": lambda: seconds(_command(servers))}
        if shutil.which("rclone"):
            cases["rclone"] = partial(_copy, stack.enter_context(_rclone(tree)), folder / "copy")
        if shutil.which("rsync"):
            cases["rsync"] = partial(_copy, stack.enter_context(_rsync(tree, folder)), folder / "copy")
        if missing := {"rclone", "rsync"} - cases.keys():
            print(f"skipped because not installed: {', '.join(sorted(missing))}: run apt install rclone rsync")
        times = run_interleaved(cases, ROUNDS)
    for name, values in times.items():
        print(f"{name:>8} {sorted(values)[len(values) // 2]:6.2f} s  ({min(values):.2f}-{max(values):.2f})")
    bounds = [Bound("requests per file", [requests / FILES], 0.05, at_most=True)]
    if "rclone" in times:
        bounds.append(Bound("time of msd / rclone", ratios(times["msd"], times["rclone"]), 0.5, at_most=True))
    conclude("small_files", {"seconds": times, "requests": requests}, bounds)


def _command(servers: RunningServers) -> list[str]:
    return [sys.executable, "-P", str(Path(__file__).with_name("fetch_files.py")), str(servers.config)]


def fetch(servers: RunningServers) -> tuple[int, int, int]:
    """Fetches all files once; returns their number, their bytes, and the number of requests."""
    output = subprocess.run(_command(servers), check=True, stdout=subprocess.PIPE, text=True).stdout
    files, size, requests = map(int, output.split())
    return files, size, requests


def _copy(command: list[str], folder: Path) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return seconds([*command, f"{folder}/"])


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(command[0], partial(_listens, port))
        yield
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with closing(socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _rclone(tree: Path) -> Iterator[list[str]]:
    """Serves the tree over HTTP and yields the command that copies it, without its target."""
    port = free_ports()[0]
    with _running(["rclone", "serve", "http", str(tree), "--addr", f"127.0.0.1:{port}", "--read-only"], port):
        url = f"http://127.0.0.1:{port}"
        yield ["rclone", "copy", ":http:", "--http-url", url, "--transfers", "32", "--checkers", "32"]


@contextmanager
def _rsync(tree: Path, folder: Path) -> Iterator[list[str]]:
    """Serves the tree with rsync's daemon and yields the command that copies it, without its target."""
    port = free_ports()[0]
    config = folder / "rsyncd.conf"
    config.write_text(f"use chroot = no\n[tree]\npath = {tree}\n")
    daemon = ["rsync", "--daemon", "--no-detach", "--port", str(port), "--address", "127.0.0.1", f"--config={config}"]
    with _running(daemon, port):
        yield ["rsync", "-a", f"rsync://127.0.0.1:{port}/tree/"]
