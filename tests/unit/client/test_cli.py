"""The parts of the client's commands that need no server. Tests of whole commands: tests/integration."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from msd.client import cli
from msd.client.cli import _name_suggestions
from msd.client.operations import verify
from msd.wire.errors import NotFoundError, SourceError


@pytest.mark.parametrize(
    ("name", "shared", "error"),
    [
        ("Sta.mp4", ["Star.mp4", "Moon.avi"], "'Sta.mp4' is not shared; did you mean 'Star.mp4'?"),
        ("Sta.mp4", ["x"], "'Sta.mp4' is not shared; msd list shows the shared files"),
        (
            None,
            ["x"],
            "no shared file is named 'Sta.mp4': give the name of a shared file; msd list shows the shared files",
        ),
    ],
)
def test_the_error_for_a_file_that_is_not_shared_suggests_similar_names(
    name: str | None, shared: list[str], error: str
) -> None:
    with pytest.raises(NotFoundError) as caught, _name_suggestions(name):
        raise NotFoundError("'Sta.mp4' is not shared", name="Sta.mp4", names=shared)
    assert str(caught.value) == error


def test_an_error_without_a_name_gets_no_suggestion() -> None:
    with pytest.raises(NotFoundError, match=r"^no file is shared$"), _name_suggestions("Star.mp4"):
        raise NotFoundError("no file is shared")


class ClosedPipe:
    """A pipe whose reader has closed it."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_difference_is_an_error_even_if_the_pipe_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: Any) -> verify.Comparison:
        return verify.Comparison("film.bin", size=9, local_size=9, segments=9, differing=(1, 3, 5), compared=9, equal=6)

    monkeypatch.setattr(verify, "verify", differs)
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with pytest.raises(
        SourceError, match=r"copy\.bin differs from the shared film\.bin: repair it with msd download film\.bin"
    ):
        cli.verify(file="copy.bin")
