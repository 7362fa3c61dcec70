"""Downloads of what lies in a bucket: what arrives, and what leaves the store."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from msd.client.scheduling.worker_pace import STORE_AHEAD
from msd.workers.indexing.object_hasher import RANGE_SIZE
from msd.workers.serving.fair_queue import MAX_IN_FLIGHT
from msd.workers.source.store_files import JOINED_SIZE
from tests.hosts import Broker
from tests.processes import MIB, Download, Process, Serve
from tests.stores.conftest import Bucket, environment
from tests.stores.failing_proxy import Answer, FailingProxy, Forward, Request
from tests.stores.servers import KEY_ID, SECRET

pytestmark = pytest.mark.stores

#: What may leave the store for one client, per byte that it asks for, indexing apart.
MAX_COPIES = 1.05
#: What a worker may take beside its cache.
MAX_RSS = 150 * MIB


def test_a_file_of_a_bucket_arrives_and_leaves_the_store_once(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    content = rng.randbytes(128 * MIB + 12345)
    bucket.put("film.bin", content)
    system = serve(bucket.url("film.bin"))
    indexed = bucket.proxy.bytes_of_objects
    assert indexed == len(content)
    with system.download("-o", str(tmp_path / "copy")) as download:
        done = download.wait_until_done()
    assert (tmp_path / "copy").read_bytes() == content
    assert not done["retries"]
    assert bucket.proxy.bytes_of_objects - indexed <= MAX_COPIES * len(content)
    assert system.states() == ["awake"] * 4


def test_a_folder_of_two_thousand_objects(bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    files = {f"{n % 7}/{n % 31}/{n}.txt": rng.randbytes(rng.randrange(100_000)) for n in range(2000)}
    bucket.put_all(files)
    system = serve(bucket.url())
    indexed = bucket.proxy.bytes_of_objects
    size = sum(map(len, files.values()))
    assert indexed == size
    with Download(system.server_flags, ".", "-o", f"{tmp_path}/copy/") as download:
        download.wait()
    assert download.events[-1]["event"] == "summary", download.err.text
    for name, content in files.items():
        assert (tmp_path / "copy" / name).read_bytes() == content, name
    assert bucket.proxy.bytes_of_objects - indexed <= MAX_COPIES * size


def test_each_worker_reads_each_segment_once_for_ten_clients(
    bucket: Bucket, tmp_path: Path, rng: random.Random
) -> None:
    """Two workers as if on two hosts, each with a proxy of its own, and with a cache as large as the file."""
    content = rng.randbytes(24 * MIB + 1)
    bucket.put("film.bin", content)
    with ExitStack() as stack:
        proxies = [bucket.proxy, stack.enter_context(FailingProxy(bucket.server.port))]
        broker = stack.enter_context(Broker(tmp_path / "broker"))
        for number, proxy in enumerate(proxies):
            env = {**bucket.env, **environment(proxy), "XDG_CACHE_HOME": str(tmp_path / f"cache{number}")}
            worker = broker.worker(f"host-{number}", "-f", bucket.url("film.bin"), env=env)
            stack.enter_context(worker).wait_until_serving()
        for proxy in proxies:
            proxy.exchanges.clear()
        downloads = [broker.download("-o", str(tmp_path / f"copy{n}")) for n in range(10)]
        for download in downloads:
            stack.enter_context(download)
        for download in downloads:
            download.wait_until_done()
    for n in range(10):
        assert (tmp_path / f"copy{n}").read_bytes() == content
    for proxy in proxies:
        ranges = [wanted for wanted in proxy.reads("film.bin") if wanted is not None]
        reads = Counter(index for start, end in ranges for index in range(start // MIB, -(-end // MIB)))
        assert reads
        assert max(reads.values()) == 1, reads.most_common(5)


def test_a_worker_reads_many_segments_at_once_where_the_store_is_slow_to_answer(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    content = rng.randbytes(128 * MIB)
    bucket.put("film.bin", content)
    system = serve(bucket.url("film.bin"))
    assert len(bucket.proxy.reads("film.bin")) <= len(content) // RANGE_SIZE + 2, "it is indexed in ranges"
    bucket.proxy.exchanges.clear()
    lock, running, most = threading.Lock(), 0, 0

    def answer_later(request: Request, forward: Forward) -> Answer:
        nonlocal running, most
        start, end = request.range or (0, 0)
        segments = -(-(end - start) // MIB)
        with lock:
            running += segments
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= segments
        return forward(request)

    bucket.proxy.fault = answer_later
    with system.download("-o", str(tmp_path / "copy")) as download:
        done = download.wait_until_done()
    assert (tmp_path / "copy").read_bytes() == content
    assert not done["wasted_bytes"]
    assert 2 * (1 + STORE_AHEAD) < most <= 4 * MAX_IN_FLIGHT
    ranges = [wanted for wanted in bucket.proxy.reads("film.bin") if wanted is not None]
    assert sum(end - start == JOINED_SIZE for start, end in ranges) > len(ranges) // 4, "segments are read together"


def test_a_worker_needs_little_memory_beside_its_cache(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    bucket.put("film.bin", rng.randbytes(96 * MIB))
    config = tmp_path / "config.toml"
    config.write_text('[store]\ncache = "16MiB"\n')
    system = serve(bucket.url("film.bin"), "-c", str(config))
    with ExitStack() as stack:
        downloads = [system.download("-o", str(tmp_path / f"copy{n}")) for n in range(2)]
        for download in downloads:
            stack.enter_context(download)
        for download in downloads:
            download.wait_until_done(60)
    for worker in system.status().workers:
        assert peak_rss(worker.pid) <= MAX_RSS + 16 * MIB


def test_the_credentials_are_shown_to_no_user(bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    """They come from config.toml, so that the environment of the processes is not where they are seen."""
    bucket.put("film.bin", rng.randbytes(3 * MIB))
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\naccess_key_id = "{KEY_ID}"\nsecret_access_key = "{SECRET}"\n')
    config.chmod(0o600)
    env = {name: value for name, value in bucket.env.items() if KEY_ID not in value and SECRET not in value}
    system = serve(bucket.url("film.bin"), "-c", str(config), "--plain", env=env)
    bucket.proxy.go_away()
    with system.download("-o", str(tmp_path / "copy"), "--timeout", "2", env=env) as download:
        assert download.wait() == 7
    command_lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in descendants(system)]
    assert len(command_lines) >= 6, "the broker, the indexer and four workers"
    status = str(system.status())
    seen = [*command_lines, status, system.out.text, system.err.text, download.out.text, download.err.text]
    assert not [text for text in seen if KEY_ID in text or SECRET in text]
    assert "connection refused" in download.err.text


def descendants(process: Process) -> list[int]:
    found = [process.pid]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def peak_rss(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) << 10
