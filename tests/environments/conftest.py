"""What the tests of environments clean up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.environments.recipes import remove_clock_files


@pytest.fixture(scope="module", autouse=True)
def _without_clock_files() -> Iterator[None]:
    yield
    remove_clock_files()
