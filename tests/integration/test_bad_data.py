"""Workers send corrupt, old or truncated data: the output file is correct or absent."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from msd.client.network_events import BanReason
from msd.client.operations.source_error import BAN_TEXTS
from tests.corrupting_relay import Relay
from tests.processes import (
    MIB,
    Download,
    Serve,
    Source,
    files_equal,
    free_ports,
    make_file,
    wait_for,
)


def test_workers_with_corrupt_old_or_truncated_files_are_reported_and_the_output_is_correct(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    path, older, shrinking = (tmp_path / name / "film.bin" for name in ("current", "older", "shrinking"))
    make_file(path, 64 * MIB, rng)
    make_file(older, 64 * MIB, rng)
    shrinking.parent.mkdir()
    shutil.copyfile(path, shrinking)
    current, outdated = serve(path, "--rate", "12MiB"), serve(older, workers=1)
    truncated = serve(shrinking, "--rate", "5MiB", workers=1)
    ports = free_ports()
    with (
        Relay(ports[0], current.ports[0], hold=0.3),
        Relay(ports[1], current.ports[1], hold=0.3, corrupt_every=60) as corrupting,
        Relay(ports[3], truncated.ports[0], hold=0.3),
    ):
        server_flags = ["-p", *map(str, [ports[0], ports[1], outdated.ports[0], ports[3], current.ports[4]])]
        with Download(server_flags, "-o", "copy.bin", cwd=tmp_path) as client:
            client.wait_until_verified(0.2)
            os.truncate(shrinking, 7)
            done = client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
    banned = {event["name"]: event["detail"] for event in client.events_of("worker") if event["state"] == "set aside"}
    assert banned == {"3": BAN_TEXTS[BanReason.UNKNOWN], "4": BAN_TEXTS[BanReason.CHANGED]}
    # A corrupt segment that arrives after another worker's copy is not compared.
    found = done["workers"]["2"]["corrupt"]
    assert 1 <= found <= corrupting.corrupted
    assert done["workers"]["3"]["bytes"] == 0
    assert {event["worker"] for event in client.events_of("retry") if event["cause"] == "corrupt"} == {"2"}
    assert [worker.complaints for worker in current.status().workers] == [0, found, 0, 0]
    for system in (current, outdated, truncated):
        assert {worker.restarts for worker in system.status().workers} == {0}


def test_if_every_worker_sends_a_corrupt_segment_no_output_is_published(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    system = serve(source(12 * MIB))
    ports = free_ports()
    relays = [Relay(ports[n], system.ports[n], corrupt_every=1) for n in range(4)]
    with relays[0], relays[1], relays[2], relays[3]:
        server_flags = ["-p", *map(str, [*ports[:4], system.ports[4]])]
        with Download(server_flags, "-o", "copy.bin", cwd=tmp_path) as client:
            assert client.wait() == 5
    assert "no worker can send segment " in client.events[-1]["message"]
    assert not (tmp_path / "copy.bin").exists()


def test_a_worker_of_other_servers_does_not_end_the_download(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    path = make_file(tmp_path / "servers" / "film.bin", 24 * MIB, rng)
    servers = serve(path.parent, "--rate", "2MiB")
    other = serve(make_file(tmp_path / "other" / "other.bin", MIB, rng), workers=1)
    server_flags = ["-p", *map(str, [*servers.ports[:3], other.ports[0], servers.ports[4]])]

    def workers_reported(state: str, *names: str) -> bool:
        return {event["name"] for event in client.events_of("worker") if event["state"] == state} >= {*names}

    def bans_of_worker_4() -> int:
        return sum(event["name"] == "4" and event["state"] == "set aside" for event in client.events_of("worker"))

    with Download(server_flags, "film.bin", "-o", "copy.bin", cwd=tmp_path) as client:
        wait_for("the ban of worker 4", bans_of_worker_4)
        servers.put_to_sleep(1, 2, 3)
        wait_for("workers 1 to 3 to be reported as lost", lambda: workers_reported("lost", "1", "2", "3"))
        # The catalogue changes, so the client unbans worker 4 and asks it for the file again.
        make_file(path.with_name("new.bin"), MIB, rng)
        wait_for("the second ban of worker 4", lambda: bans_of_worker_4() == 2)
        servers.wake(1, 2, 3)
        client.wait_until_done()
    assert files_equal(path, tmp_path / "copy.bin")
