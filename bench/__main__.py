"""Runs the measurements named on the command line, or all of them."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

from bench.measuring import machine

NAMES = ("startup", "scheduler", "disk", "faults", "copying", "overhead", "scaling", "sizes", "views")

# Ends what was started here, like Ctrl-C.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
# As for everybody else: with it each process would compile all of msd anew, 40 ms.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
print(machine())
for name in sys.argv[1:] or NAMES:
    if name not in NAMES:
        sys.exit(f"bench: no measurement {name!r}: there are {', '.join(NAMES)}")
    print(f"\n{name}: {import_module(f'bench.{name}').__doc__}")
    import_module(f"bench.{name}").run()
