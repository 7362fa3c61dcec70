"""How workers are called in texts for operators. Pure.

Formats numbers and names only; ``broker/supervision/registration.py`` decides which name and number a worker has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def worker_label(number: int, name: str) -> str:
    """Returns the number of a worker and, if that is not its name, the name: ``5`` or ``5 (attic)``."""
    return f"{number} ({name})" if name not in ("", str(number)) else str(number)


def list_numbers(numbers: Sequence[int]) -> str:
    """Lists increasing numbers, such as ``1 to 4, 7``."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def known_workers(numbers: Sequence[int]) -> str:
    """Returns the part of an error message that says which workers there are."""
    return f"the workers are numbered {list_numbers(numbers)}" if numbers else "no worker has joined yet"
