"""``msd worker`` takes its flags from the command line and from the environment."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from msd.workers.cli import commands, joining_worker


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options that the command has received."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(joining_worker, "worker_options", lambda config, **values: given.update(values))
    monkeypatch.setattr(joining_worker, "run", lambda options: 0)
    return given


def call(*arguments: str) -> None:
    app = typer.Typer()
    commands.mount(app)
    app([*arguments], standalone_mode=False)


def test_flags_and_paths_are_taken(given: dict[str, Any]) -> None:
    call("--join", "10.0.0.5", "film", "-f", "music", "--name", "attic", "--exclude", "*.tmp")
    assert (given["join"], given["paths"], given["name"]) == ("10.0.0.5", ["film", "music"], "attic")
    assert given["excludes"] == ["*.tmp"]


def test_every_flag_with_a_value_may_come_from_the_environment(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("join", "server_key", "key_file", "listen", "advertise", "name", "rate")
    for flag in flags:
        monkeypatch.setenv(f"MSD_{flag.upper()}", f"value of {flag}")
    call("film")
    assert {flag: given[flag] for flag in flags} == {flag: f"value of {flag}" for flag in flags}
    call("film", "--join", "10.0.0.5")
    assert given["join"] == "10.0.0.5"
