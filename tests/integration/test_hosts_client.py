"""Clients of workers that have joined from several hosts: real processes on loopback."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from msd.wire.errors import NotAllowedError
from msd.wire.security.keys import Role
from tests.hostile_clients import Keyring
from tests.hosts import Broker
from tests.processes import MIB, Source, run_msd

pytestmark = pytest.mark.usefixtures("runtime_folder")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_hosts_with_different_files_and_a_broker_that_goes_away(stack: ExitStack, tmp_path: Path) -> None:
    """
    1. Two hosts have one version of a file. A third one has another version, and a file that they lack.
    2. The version of most hosts is downloaded, and the client says that server 5 does not vouch for it. The third host
       is named with the reason.
    3. The list has the files of all hosts.
    4. The broker and the third host are killed: a new download begins at once with the last known workers.
    """
    right, wrong = b"right" * 200_000, b"wrong" * 200_000
    broker = stack.enter_context(Broker(tmp_path / "b"))
    for name, content in {"attic": right, "cellar": right, "yard": wrong}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "film").write_bytes(content)
        if name == "yard":
            (folder / "only").write_bytes(b"x")
        yard = stack.enter_context(broker.worker(name, str(folder)))
        broker.wait_for_states(**{name: "awake"})

    def download(name: str) -> list[dict[str, object]]:
        with broker.download(name, "-o", "copy", "--force", cwd=tmp_path) as client:
            client.wait_until_done()
            return client.events

    def download_from_all() -> list[dict[str, object]]:
        """A host may answer too late, because this machine may be busy."""
        for _ in range(5):
            events = download("film")
            (warning,) = (str(event["text"]) for event in events if event["event"] == "warning")
            if " of 3 workers " in warning:
                assert warning.startswith("server 5 vouches for no version of film: 2 of 3 workers have this one (id ")
                return events
        raise AssertionError("never did all hosts answer in time")

    events = download_from_all()
    assert (tmp_path / "copy").read_bytes() == right
    unused = [event for event in events if event["event"] == "worker" and event["state"] == "set aside"]
    assert [(event["name"], event["detail"], event["place"]) for event in unused] == [
        ("3", "does not have this version of the file", "yard, 127.0.0.1")
    ]
    download("only")
    assert (tmp_path / "copy").read_bytes() == b"x"
    with broker.download("film", "only", "-o", "all/", cwd=tmp_path) as client:
        assert client.wait() == 0, client.err.text
    assert (tmp_path / "all" / "only").read_bytes() == b"x"
    (warning,) = (event["text"] for event in client.events_of("warning"))
    assert str(warning).startswith("server 5 vouches for no version of 2 of these files: ")
    listed = json.loads(run_msd("list", "--json", *broker.server_flags).stdout)["files"]
    assert [(file["name"], file["workers"]) for file in listed] == [("film", 2), ("film", 1), ("only", 1)]
    assert run_msd("list", *broker.server_flags).stdout.splitlines()[2].endswith("  1 of 3  only")
    yard.signal(signal.SIGKILL)
    broker.signal(signal.SIGKILL)
    broker.wait()
    began = time.monotonic()
    with broker.download("film", "-o", "copy", "--force", cwd=tmp_path) as client:
        client.wait_until_done()
        (started,) = client.events_of("start")
        (server5,) = (event for event in client.events_of("worker") if event["name"] == "server 5")
    assert started["at"] - began < 5.0, "not 2 s, because this machine may be busy"
    assert server5["detail"] == "it does not answer; using the workers that it listed last"
    assert (tmp_path / "copy").read_bytes() == right
    assert not client.events_of("warning")


def test_a_download_whose_key_is_revoked_on_the_way_says_so(stack: ExitStack, source: Source, tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys")
    keys.create_key("host", Role.WORKER)
    keys.create_key("alice", Role.CLIENT)
    path = source(24 * MIB)
    broker = stack.enter_context(Broker(tmp_path / "b", keys=keys))
    for name in ("attic", "cellar"):
        stack.enter_context(broker.worker(name, str(path), "--rate", "1MiB", owner="host"))
        broker.wait_for_states(**{name: "awake"})
    with broker.download("-o", "copy.bin", cwd=tmp_path, owner="alice") as client:
        client.wait_until_verified(0.05)
        keys.key_folder("servers").revoke("alice")
        assert client.wait() == NotAllowedError.exit_code
    assert " not admit this key" in client.events[-1]["message"]
    lost = [event["name"] for event in client.events_of("worker") if event["state"] == "lost"]
    assert sorted(lost) == ["1", "2"]
