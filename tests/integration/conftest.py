"""Fixtures for tests with real processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, make_file

Serve = Callable[..., System]


@pytest.fixture
def serve(runtime_folder: Path) -> Iterator[Serve]:
    """Starts servers for a path and waits until they are ready; ends them after the test."""
    with ExitStack() as stack:

        def start(path: Path, *arguments: str, **options: Any) -> System:
            system = stack.enter_context(System(path, *arguments, **options))
            return system.wait_until_ready()

        yield start


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Callable[[int], Path]:
    """Makes a file of so many bytes of noise to be shared."""
    return lambda size: make_file(tmp_path / "shared" / "film.bin", size, rng)
