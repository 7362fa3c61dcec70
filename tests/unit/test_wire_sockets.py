"""What all sockets share: here how many a process may have."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from wire.sockets import raise_descriptor_limit


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """The limits of a process that may have more descriptors than it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = (512, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, lowered)
    yield lowered
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_may_have_as_many_descriptors_as_it_is_allowed(limits: tuple[int, int]) -> None:
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_limit_that_cannot_be_raised_stays(
    limits: tuple[int, int], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
