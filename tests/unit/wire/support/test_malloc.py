"""What is freed stays: counted in page faults, without a clock."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS, BUFFERS = 10, 16
#: Fills and frees buffers of a segment's size again and again; prints the page faults after the first round.
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


def faults(how: str) -> int:
    command = [sys.executable, "-c", CODE, how]
    return int(subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[4]).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_what_was_freed_costs_no_page_faults_again() -> None:
    pages = ROUNDS * BUFFERS * (1 << 20) // 4096
    assert faults("kept") < pages / 20
    # So that it is not the measurement that is wrong.
    assert faults("given back") > pages / 2
