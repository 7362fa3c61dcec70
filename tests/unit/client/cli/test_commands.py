"""The flags of the client's commands reach what they run. Tests of whole commands: tests/integration."""

from __future__ import annotations

from typing import Any

import pytest

from msd.client.cli import commands, download_command, list_command, verify_command
from msd.client.cli.download_command import DownloadFlags
from msd.wire.errors import UsageError


class Runs:
    """Replaces what a command runs, and records the arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        self.arguments: list[Any] = []
        self.options: dict[str, Any] = {}
        monkeypatch.setattr(module, "run", self)

    def __call__(self, *arguments: Any, **options: Any) -> int:
        self.arguments, self.options = [*arguments], options
        return 5


def test_the_flags_of_a_download_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, download_command)
    code = commands.download(host="h", names=["a", "b"], exclude=["*.tmp"], no_sync=True, max_rate="5k", interval=2.0)
    assert code == 5
    server_flags, flags = runs.arguments
    assert server_flags.host == "h"
    assert isinstance(flags, DownloadFlags)
    assert (flags.names, flags.exclude, flags.max_rate, flags.interval) == (("a", "b"), ("*.tmp",), "5k", 2.0)
    assert (flags.sync, flags.check_space, flags.output, flags.json) == (False, True, None, False)


def test_list_and_verify_pass_their_names_on(monkeypatch: pytest.MonkeyPatch) -> None:
    listing, verification = Runs(monkeypatch, list_command), Runs(monkeypatch, verify_command)
    commands.list_command(names=["photos/"], long=True, timeout=3.0)
    assert listing.arguments[1:] == [["photos/"]]
    assert listing.options == {"timeout": 3.0, "long": True, "as_json": False}
    commands.verify(path="copy", name="film", json=True)
    assert verification.arguments[1:] == ["copy", "film"]
    assert verification.options == {"sha256": None, "timeout": 5.0, "as_json": True}


@pytest.mark.parametrize(("command", "options"), [(commands.list_command, {}), (commands.verify, {"path": "x"})])
def test_a_timeout_must_be_positive(command: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--timeout 0: must be more than 0 seconds"):
        command(timeout=0.0, **options)
