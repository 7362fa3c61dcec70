"""Downloads that pass on what they have: real processes on loopback. ``tests/environments`` has many machines."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.hostile_clients import process_and_children
from tests.hosts import Broker
from tests.passing import WrongReceiver, from_peers, holders, wait_until_serving
from tests.processes import MIB, Download, Serve, Source, System, files_equal, free_ports, make_file, wait_for

SIZE = 12 * MIB


def receive(system: System, folder: Path, name: str, *arguments: str) -> Download:
    return system.download("-o", name, "--force", "--pass-on", *arguments, cwd=folder)


def test_a_download_that_keeps_serving_is_enough_for_another_one(serve: Serve, source: Source, tmp_path: Path) -> None:
    """
    1. A download is complete, and goes on passing on.
    2. It receives nothing any more, which does not count towards its --timeout.
    3. Another one begins. Then all workers are put to sleep: it gets everything from the first one.
    4. Ctrl-C ends the first one, and with it the process that passes on. The download was complete, and is reported so.
    """
    path = source(SIZE)
    system = serve(path, "--rate", "1MiB")
    with receive(system, tmp_path, "first", "--keep-serving", "10m", "--timeout", "60") as first:
        first.wait_until_verified(1.0)
        plan = bytes.fromhex(first.events_of("start")[0]["id"])
        wait_for("a holder", lambda: holders(system.ports[4], plan))
        notices = wait_for(
            "a notice", lambda: [e for e in first.events_of("waiting") if "passed on to others" in e["reason"]]
        )
        assert "timeout" not in notices[0]
        pids = process_and_children(first.pid)
        assert len(pids) == 2
        with receive(system, tmp_path, "second") as second:
            wait_for("a peer", lambda: [e for e in second.events_of("worker") if e["name"].startswith("peer")])
            system.put_to_sleep(1, 2, 3, 4)
            done = second.wait_until_done()
        assert files_equal(path, tmp_path / "second")
        assert from_peers(done) > SIZE // 4
        assert first.process.poll() is None
        first.signal(signal.SIGINT)
        assert first.wait_until_done()["passed_on_bytes"] >= from_peers(done)
    assert files_equal(path, tmp_path / "first")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_the_time_of_passing_on_is_not_time_that_was_waited(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(MIB), workers=1)
    with receive(system, tmp_path, "copy", "--keep-serving", "2s") as download:
        done = download.wait_until_done()
        assert [event for event in download.events_of("waiting") if "passed on to others" in event["reason"]]
    assert done["waited_seconds"] == 0.0


@pytest.mark.parametrize("flag", ["--update", "--checksum"])
def test_what_an_existing_file_has_is_passed_on(serve: Serve, source: Source, tmp_path: Path, flag: str) -> None:
    """The first download has the old file, of which nothing is copied, or one half; the second one has nothing."""
    path = source(SIZE)
    system = serve(path, "--rate", "1MiB")
    old = path.read_bytes()
    (tmp_path / "first").write_bytes(old[: SIZE // 2] + bytes(SIZE // 2) if flag == "--update" else old)
    arguments = ("-o", "first", "--pass-on", "--keep-serving", "10m", flag)
    with system.download(*arguments, cwd=tmp_path) as first:
        plan = bytes.fromhex(wait_for("the start", lambda: first.events_of("start"))[0]["id"])
        wait_for("a holder", lambda: holders(system.ports[4], plan))
        with receive(system, tmp_path, "second") as second:
            wait_for("a peer", lambda: [e for e in second.events_of("worker") if e["name"].startswith("peer")])
            assert from_peers(second.wait_until_done()) > SIZE // 10
        first.wait_until_verified(1.0)
        first.signal(signal.SIGTERM)
        first.wait_until_done()
    assert files_equal(path, tmp_path / "first")
    assert files_equal(path, tmp_path / "second")


def test_receivers_of_a_file_that_changes_pass_on_the_new_version(
    serve: Serve, source: Source, tmp_path: Path, rng: random.Random
) -> None:
    """The scheduler numbers its units after those of the old version, unlike the plan."""
    path = source(SIZE // 2)
    system = serve(path, "--rate", "512KiB")
    with receive(system, tmp_path, "first") as first, receive(system, tmp_path, "second") as second:
        for download in (first, second):
            download.wait_until_verified(0.3)
        new = make_file(tmp_path / "new", SIZE // 2, rng)
        content = new.read_bytes()
        new.replace(path)
        reports = [download.wait_until_done() for download in (first, second)]
        assert all(download.events_of("changed") for download in (first, second))
        changed_at = max(download.events_of("changed")[0]["at"] for download in (first, second))
    assert all((tmp_path / name).read_bytes() == content for name in ("first", "second"))
    assert sum(map(from_peers, reports)) > 0
    assert sum(report["passed_on_bytes"] for report in reports) >= sum(map(from_peers, reports)), "of both versions"
    later = [e for d in (first, second) for e in d.events_of("progress") if e["at"] > changed_at + 1.0]
    received = [{n: w["received"] for n, w in e["workers"].items() if n.startswith("peer")} for e in later]
    assert any(one != other for one, other in pairwise(received)), "peers send units of the new version"


def test_a_busy_port_is_noticed_before_anything_is_made(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(MIB), workers=1)
    port = system.ports[0]
    for name in ("film.bin", "*"):
        with system.download(
            name, "-o", "out/", "--pass-on", "--listen", f"127.0.0.1:{port}", cwd=tmp_path
        ) as download:
            assert download.wait() == 2
            assert f"port {port} (passing on) is in use" in download.err.text
            assert "--listen" in download.err.text
    assert not (tmp_path / "out").exists()


def test_new_receivers_find_the_old_ones_after_the_broker_was_killed(tmp_path: Path) -> None:
    """All that pass on when the broker is killed go on. They announce themselves to the next one."""
    path = make_file(tmp_path / "film", SIZE, random.Random(1))
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path / "b"))
        port = str(free_ports()[0])
        worker = broker.worker("attic", str(path), "--listen", f"127.0.0.1:{port}", "--rate", "3MiB")
        stack.enter_context(worker).wait_until_serving()
        flags = ("--pass-on", "--keep-serving", "10m")
        downloads = [broker.download("-o", name, *flags, cwd=tmp_path) for name in ("first", "second")]
        for download in downloads:
            stack.enter_context(download)
        for download in downloads:
            download.wait_until_verified(0.2)
        plan = bytes.fromhex(downloads[0].events_of("start")[0]["id"])
        broker.signal(signal.SIGKILL)
        broker.wait()
        for download in downloads:
            wait_until_serving(download)
        assert all(files_equal(path, tmp_path / name) for name in ("first", "second"))
        broker.start_again()
        wait_for("both receivers", lambda: len(holders(broker.port, plan)) == 2)
        third = stack.enter_context(broker.download("-o", "third", "--pass-on", cwd=tmp_path))
        assert from_peers(third.wait_until_done()) > SIZE // 10
    assert files_equal(path, tmp_path / "third")


def test_a_download_that_is_killed_leaves_no_process(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(SIZE), "--rate", "1MiB", workers=1)
    with receive(system, tmp_path, "copy") as download:
        pids = wait_for("its process", lambda: found if len(found := process_and_children(download.pid)) == 2 else None)
        download.signal(signal.SIGKILL)
        download.wait()
        wait_for("the end of its process", lambda: not Path(f"/proc/{pids[1]}").exists())


@pytest.fixture
def wrong(serve: Serve, source: Source) -> Iterator[tuple[System, Path, WrongReceiver]]:
    path = source(SIZE)
    system = serve(path, "--rate", "1MiB")
    plan = bytes.fromhex(next(iter(system.ids().values())))
    with WrongReceiver(system, plan, {plan: SIZE}) as receiver:
        wait_for("the wrong receiver", lambda: holders(system.ports[4], plan))
        yield system, path, receiver


def test_a_receiver_that_sends_wrong_units_is_named_and_not_used_any_more(
    wrong: tuple[System, Path, WrongReceiver], tmp_path: Path
) -> None:
    system, path, receiver = wrong
    with receive(system, tmp_path, "copy") as download:
        done = download.wait_until_done()
    assert files_equal(path, tmp_path / "copy")
    bans = [event for event in download.events_of("worker") if event["detail"] == "sent corrupt data"]
    ((name, detail, place),) = [(event["name"], event["detail"], event["place"]) for event in bans]
    assert (name, detail) == ("peer 1", "sent corrupt data")
    assert place == receiver.endpoint.replace("tcp://*", "127.0.0.1")
    assert done["workers"]["peer 1"]["bytes"] == 0
    assert done["workers"]["peer 1"]["corrupt"] <= 3
