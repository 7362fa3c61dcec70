"""Runs the benchmarks named on the command line, or all of them."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

from bench.measuring import machine

NAMES = (
    "startup",
    "scheduler",
    "plan",
    "indexing",
    "disk",
    "faults",
    "copying",
    "overhead",
    "threads",
    "scaling",
    "sizes",
    "small_files",
    "folders",
    "views",
    "fanout",
    "stores",
)

# SIGTERM unwinds the stack like Ctrl-C, so that all processes started here are ended.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
# Without bytecode files, each process would recompile msd, which takes 40 ms. An installed msd has these files.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
print(machine())
for name in sys.argv[1:] or NAMES:
    if name not in NAMES:
        sys.exit(f"bench: no benchmark is named {name!r}: choose from {', '.join(NAMES)}")
    print(f"\n{name}: {import_module(f'bench.{name}').__doc__}")
    import_module(f"bench.{name}").run()
