"""Other servers than SeaweedFS: a second one with S3, mirrors with and without ETags, and one that ignores ranges."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.processes import MIB, Serve, run_msd
from tests.stores.conftest import Bucket, port_flags
from tests.stores.failing_proxy import FailingProxy, without_ranges
from tests.stores.servers import BUCKET, JuiceFsGateway, Nginx, RcloneHttp, RcloneS3, Server

pytestmark = pytest.mark.stores


@pytest.fixture(scope="module")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JuiceFsGateway]:
    with JuiceFsGateway(tmp_path_factory.mktemp("juicefs")) as server:
        yield server


@pytest.fixture(scope="module", params=[Nginx, RcloneHttp])
def mirror(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with request.param(tmp_path_factory.mktemp("mirror")) as server:
        yield server


def test_a_second_server_with_s3(
    juicefs: JuiceFsGateway, open_bucket: Any, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    bucket = open_bucket(juicefs)
    old, new = rng.randbytes(5 * MIB + 3), rng.randbytes(6 * MIB)
    bucket.put("new/film.bin", old)
    bucket.put("ü b", b"text")
    system = serve(bucket.url())
    assert system.shared() == {"new/film.bin": len(old), "ü b": 4}
    with system.download("new/film.bin", "-o", str(tmp_path / "copy"), "--max-rate", "1MiB") as download:
        download.wait_until_verified(0.2)
        bucket.put("new/film.bin", new)
        download.wait_until_done(90)
    assert (tmp_path / "copy").read_bytes() == new


def test_a_file_of_a_mirror(
    mirror: Server, runtime_folder: Path, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    content = rng.randbytes(5 * MIB + 3)
    path = mirror.folder / "files" / "film ü.bin"
    path.write_bytes(content)
    with FailingProxy(mirror.port) as proxy:
        system = serve(f"{proxy.url}/film%20%C3%BC.bin")
        assert system.shared() == {"film ü.bin": len(content)}
        indexed = proxy.bytes_of_objects
        assert indexed == len(content)
        with system.download("-o", str(tmp_path / "copy")) as download:
            download.wait_until_done()
        assert (tmp_path / "copy").read_bytes() == content
        assert proxy.bytes_of_objects - indexed <= 2 * len(content)


def test_a_file_of_a_mirror_that_is_replaced_on_the_way(
    mirror: Server, runtime_folder: Path, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    """Without an ETag, the time and the size are the version."""
    old, new = rng.randbytes(6 * MIB), rng.randbytes(7 * MIB)
    path = mirror.folder / "files" / "film.bin"
    path.write_bytes(old)
    os.utime(path, (10**9, 10**9))
    system = serve(f"{mirror.url}/film.bin")
    with system.download("-o", str(tmp_path / "copy"), "--max-rate", "1MiB") as download:
        download.wait_until_verified(0.2)
        path.with_name("other").write_bytes(new)
        os.replace(path.with_name("other"), path)
        download.wait_until_done(90)
    assert (tmp_path / "copy").read_bytes() == new


def test_a_server_that_ignores_ranges_is_named(
    open_bucket: Any, runtime_folder: Path, tmp_path: Path, rng: random.Random
) -> None:
    with RcloneS3(tmp_path / "rclone") as server:
        bucket = open_bucket(server)
        (server.folder / "files" / BUCKET / bucket.prefix).mkdir()
        (server.folder / "files" / BUCKET / bucket.prefix / "film.bin").write_bytes(rng.randbytes(3 * MIB))
        ended = run_msd("serve", *port_flags(), "-f", bucket.url())
    assert ended.returncode == 5
    lines = ended.stderr.splitlines()
    assert "the server ignores ranges" in lines[-1]
    assert lines[-1].startswith("msd: ")


def test_a_store_that_begins_to_ignore_ranges_is_named(
    bucket: Bucket, serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    bucket.put("film.bin", rng.randbytes(3 * MIB))
    system = serve(bucket.url())
    bucket.proxy.fault = without_ranges
    with system.download("film.bin", "-o", str(tmp_path / "copy")) as download:
        assert download.wait() == 5
    assert "worker 1 cannot read the file: s3://films: the server ignores ranges" in download.err.text


def test_a_web_server_that_ignores_ranges_is_named(runtime_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "film.bin").write_bytes(bytes(3 * MIB))

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments: object) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            with contextlib.suppress(OSError):
                super().copyfile(source, outputfile)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        ended = run_msd("serve", *port_flags(), "-f", f"http://127.0.0.1:{server.server_port}/film.bin")
        server.shutdown()
        thread.join()
    assert ended.returncode == 5
    assert "the server ignores ranges" in ended.stderr
