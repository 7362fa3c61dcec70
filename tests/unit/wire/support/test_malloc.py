"""Freed memory is reused and not returned to the kernel. The tests count page faults to check this."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS, BUFFERS = 10, 16
#: Repeatedly fills and frees buffers of a segment's size; prints the number of page faults after the first round.
CODE = f"""
import resource, sys
from msd.wire.support.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def fill():
    buffers = [bytearray(b"x") * (1 << 20) for _ in range({BUFFERS})]
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    command = [sys.executable, "-c", CODE, mode]
    return int(subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[4]).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_reusing_freed_memory_causes_no_page_faults() -> None:
    pages = ROUNDS * BUFFERS * (1 << 20) // 4096
    assert page_faults("kept") < pages / 20
    # Proves that the test would detect memory that is returned to the kernel.
    assert page_faults("returned") > pages / 2
