"""Stores that fail while they are read: what is said, and that downloads go on when the store does."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.processes import MIB, Download, Serve, System, run_msd, wait_for
from tests.stores.conftest import Bucket, port_flags
from tests.stores.failing_proxy import (
    Answer,
    Fault,
    Forward,
    Request,
    answering,
    at_rate,
    with_short_bodies,
    with_wrong_bodies,
)
from tests.stores.servers import SeaweedFs

pytestmark = pytest.mark.stores

#: Heartbeats come each half second: while the store fails, this many must have arrived from each worker.
SECONDS = 4.0


@contextmanager
def fault(bucket: Bucket, wanted: Fault) -> Iterator[None]:
    bucket.proxy.fault = wanted
    try:
        yield
    finally:
        bucket.proxy.release()


@contextmanager
def away(bucket: Bucket) -> Iterator[None]:
    bucket.proxy.go_away()
    try:
        yield
    finally:
        bucket.proxy.come_back()


@contextmanager
def killed(bucket: Bucket) -> Iterator[None]:
    bucket.server.kill()
    try:
        yield
    finally:
        bucket.server.start()


Failing = Callable[[Bucket], AbstractContextManager[None]]
FAULTS: dict[str, tuple[Failing, str]] = {
    "500": (
        lambda bucket: fault(bucket, answering(500, "InternalError", "We encountered an internal error.")),
        "500 Internal Server Error: InternalError: We encountered an internal error.",
    ),
    "503": (
        lambda bucket: fault(bucket, answering(503, "SlowDown", "Please reduce your request rate.")),
        "503 Service Unavailable: SlowDown: Please reduce your request rate.",
    ),
    "expired credentials": (
        lambda bucket: fault(bucket, answering(403, "ExpiredToken", "The provided token has expired.")),
        "403 Forbidden: ExpiredToken: The provided token has expired.",
    ),
    "missing bucket": (
        lambda bucket: fault(bucket, answering(404, "NoSuchBucket", "The specified bucket does not exist")),
        "404 Not Found: NoSuchBucket: The specified bucket does not exist",
    ),
    "bodies that end early": (
        lambda bucket: fault(bucket, with_short_bodies),
        "the connection was closed before the end of the answer",
    ),
    "no connection": (away, "connection refused"),
    # Its proxy is there, and closes connections.
    "killed": (killed, "the connection was closed before an answer"),
    "no answer": (lambda bucket: fault(bucket, bucket.proxy.hang), "no answer in time"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_download_goes_on_when_the_store_does(
    name: str, bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    failing, words = FAULTS[name]
    content = rng.randbytes(20 * MIB + 7)
    bucket.put("film.bin", content)
    system = serve(bucket.url())
    with system.download("film.bin", "-o", str(tmp_path / "copy"), "--max-rate", "4MiB") as download:
        download.wait_until_verified(0.2)
        with failing(bucket):
            wait_for("the words of the client", lambda: says(download, words), 60)
            watch(system, SECONDS)
            verified = download.verified_bytes
            assert verified < len(content)
        done = download.wait_until_done(60)
    assert (tmp_path / "copy").read_bytes() == content
    assert download.err.text == ""
    assert done["bytes"] == len(content)
    assert f"cannot read some files: s3://films: {words}" in system.out.text
    assert "Traceback" not in system.err.text + system.out.text


def says(download: Download, words: str) -> bool:
    """True if all workers are unavailable for this reason, and the client says so as the reason for waiting."""
    assert download.process.poll() is None, download.err.text
    waiting = f"no worker can read its files at the moment: s3://films: {words}"
    found = {e["name"] for e in download.events_of("worker") if e["state"] == "unavailable" and words in e["detail"]}
    return found == {"1", "2", "3", "4"} and any(e["reason"].startswith(waiting) for e in download.events_of("waiting"))


def watch(system: System, seconds: float) -> None:
    """Asserts that all workers are awake for this long: none is silent, and none was restarted."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        workers = system.status().workers
        assert [worker.state.value for worker in workers] == ["awake"] * 4
        assert not any(worker.restarts for worker in workers)


def test_a_store_that_sends_a_byte_a_second_is_asked_again_after_a_minute(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    content = rng.randbytes(6 * MIB)
    bucket.put("film.bin", content)
    system = serve(bucket.url())
    bucket.proxy.fault = at_rate(1.0)
    with system.download("film.bin", "-o", str(tmp_path / "copy")) as download:
        wait_for("requests", lambda: bucket.proxy.reads("film.bin")[1:])
        bucket.proxy.fault = lambda request, forward: forward(request)
        watch(system, SECONDS)
        download.wait_until_done(90)
    assert (tmp_path / "copy").read_bytes() == content


def test_a_client_gives_up_with_the_words_of_the_store(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    bucket.put("film.bin", rng.randbytes(2 * MIB))
    system = serve(bucket.url("film.bin"))
    bucket.proxy.fault = answering(403, "AccessDenied", "Access Denied.")
    ended = run_msd("download", *system.server_flags, "-o", str(tmp_path / "copy"), "--timeout", "3", "--quiet")
    assert ended.returncode == 7
    reason = "no worker can read its files at the moment: s3://films: 403 Forbidden: AccessDenied: Access Denied."
    assert ended.stderr == f"msd: gave up after 3 s without progress: {reason}\n"
    assert not (tmp_path / "copy").exists()


def test_a_wrong_body_is_read_again(bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    content = rng.randbytes(8 * MIB)
    bucket.put("film.bin", content)
    system = serve(bucket.url())
    wrong: set[str] = set()

    def first_is_wrong(request: Request, forward: Forward) -> Answer:
        is_first = request.method == "GET" and request.headers.get("range", "") not in wrong
        wrong.add(request.headers.get("range", ""))
        return with_wrong_bodies(request, forward) if is_first and not request.is_list else forward(request)

    bucket.proxy.fault = first_is_wrong
    with system.download("film.bin", "-o", str(tmp_path / "copy")) as download:
        done = download.wait_until_done()
    assert len(wrong) >= 8
    assert (tmp_path / "copy").read_bytes() == content
    assert not done["retries"]


def test_a_store_that_keeps_sending_wrong_bodies_ends_the_download(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    bucket.put("film.bin", rng.randbytes(4 * MIB))
    system = serve(bucket.url())
    bucket.proxy.fault = with_wrong_bodies
    with system.download("film.bin", "-o", str(tmp_path / "copy")) as download:
        assert download.wait() == 5
    said = "s3://films sent other bytes than those that were indexed, although the version is the same"
    assert download.err.text.count(said) == 1
    assert len(download.err.lines) == 1
    assert not any(event["retries"].get("corrupt") for event in download.events_of("progress") if "retries" in event)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("is_online", [True, False])
def test_an_object_that_is_replaced_on_the_way_arrives_in_its_new_version(
    is_online: bool, bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    old = rng.randbytes(16 * MIB)
    new = old[: 8 * MIB] + rng.randbytes(10 * MIB)
    bucket.put("film.bin", old)
    system = serve(bucket.url())
    with system.download("film.bin", "-o", str(tmp_path / "copy"), "--max-rate", "2MiB") as download:
        download.wait_until_verified(0.2)
        if not is_online:
            bucket.proxy.go_away()
        bucket.put("film.bin", new)
        if not is_online:
            bucket.proxy.come_back()
        download.wait_until_done(90)
    assert (tmp_path / "copy").read_bytes() == new


@pytest.mark.parametrize("is_prefix", [True, False])
def test_an_object_that_is_not_there_cannot_be_shared(is_prefix: bool, bucket: Bucket) -> None:
    url = bucket.url("gone/" if is_prefix else "gone")
    ended = run_msd("serve", *port_flags(), "-f", url)
    assert ended.returncode == 2
    assert ended.stderr == f"msd: {url}: there is no such object, and none below it\n"


def test_wrong_credentials_are_said_when_the_servers_start(bucket: Bucket) -> None:
    bucket.put("film.bin", b"film")
    for url in (bucket.url(), bucket.url("film.bin")):
        ended = run_msd("serve", *port_flags(), "-f", url, env={**bucket.env, "AWS_SECRET_ACCESS_KEY": "another"})
        assert ended.returncode == 5
        assert ended.stderr.startswith(
            f"msd: {url} at {bucket.proxy.url}: cannot be listed: 403 Forbidden: SignatureDoesNotMatch: "
        )
        assert len(ended.stderr.splitlines()) == 1


def test_a_bucket_that_is_not_there_is_said_when_the_servers_start(bucket: Bucket) -> None:
    ended = run_msd("serve", *port_flags(), "-f", "s3://no-such-bucket/films/")
    assert ended.returncode == 5
    assert "404 Not Found: NoSuchBucket" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_store_that_is_away_is_said_when_the_servers_start(bucket: Bucket) -> None:
    bucket.proxy.go_away()
    ended = run_msd("serve", *port_flags(), "-f", bucket.url())
    assert ended.returncode == 5
    assert ended.stderr == f"msd: {bucket.url()} at {bucket.proxy.url}: cannot be listed: connection refused\n"
    bucket.proxy.come_back()


def test_workers_are_restarted_while_the_store_is_away(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    content = rng.randbytes(5 * MIB)
    bucket.put("film.bin", content)
    system = serve(bucket.url())
    bucket.proxy.go_away()
    system.kill(1, 2)
    with system.download("film.bin", "-o", str(tmp_path / "copy")) as download:
        wait_for("restarted workers", lambda: [w.restarts for w in system.status().workers] == [1, 1, 0, 0])
        wait_for("workers", lambda: system.states() == ["awake"] * 4)
        bucket.proxy.come_back()
        download.wait_until_done()
    assert (tmp_path / "copy").read_bytes() == content


def test_a_small_object_waits_for_a_store_that_was_killed(
    bucket: Bucket, seaweed_fs: SeaweedFs, serve: Serve, tmp_path: Path
) -> None:
    bucket.put("film.bin", b"film")
    system = serve(bucket.url())
    seaweed_fs.kill()
    with system.download("film.bin", "-o", str(tmp_path / "copy")) as download:
        reason = "no worker can read its files at the moment: s3://films: the connection was closed before an answer"
        wait_for("words", lambda: reason in download.out.text)
        seaweed_fs.start()
        download.wait_until_done()
    assert (tmp_path / "copy").read_bytes() == b"film"
