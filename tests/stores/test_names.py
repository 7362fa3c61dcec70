"""Keys of a bucket that are no file names, or unusual ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from tests.processes import Download, Serve, run_msd
from tests.stores.conftest import Bucket, port_flags
from tests.stores.failing_proxy import Answer, Fault, Forward, Request
from tests.stores.servers import BUCKET

pytestmark = pytest.mark.stores

#: Every kind of character that a key may have and the file systems of clients, too.
NAMES = [
    "a b.txt",
    "ü/東京.txt",
    "100%.txt",
    "a+b&c=d.txt",
    "a?b#c.txt",
    "%2F.txt",
    "quo'te\".txt",
    "deep/er/and/deeper",
]


def test_files_with_unusual_names_arrive(bucket: Bucket, serve: Serve, tmp_path: Path) -> None:
    for name in NAMES:
        bucket.server.put(f"{BUCKET}/{bucket.prefix}/{name}", name.encode())
    system = serve(bucket.url())
    assert {*system.shared()} == {*NAMES}
    with Download(system.server_flags, ".", "-o", f"{tmp_path}/copy/") as download:
        assert download.wait() == 0, download.err.text
    assert {name: (tmp_path / "copy" / name).read_text() for name in NAMES} == {name: name for name in NAMES}


KEYS = ["../film.bin", "a/../film.bin", "./film.bin", "a//film.bin", "/film.bin"]


def listing(bucket: Bucket, old: str, new: str) -> Fault:
    """A fault: lists have another key. The server of these tests keeps no such keys."""
    before, after = (f"<Key>{bucket.prefix}/{key}</Key>".encode() for key in (old, new))

    def renamed(request: Request, forward: Forward) -> Answer:
        answer = forward(request)
        return structs.replace(answer, body=answer.body.replace(before, after)) if request.is_list else answer

    return renamed


@pytest.mark.parametrize("key", KEYS)
def test_the_folder_of_a_key_that_is_no_path_is_left_out_and_named(
    key: str, bucket: Bucket, serve: Serve, tmp_path: Path
) -> None:
    for name in ("b.txt", "deep/er/left-out", "deep/c.txt"):
        bucket.put(name, b"text")
    bucket.proxy.fault = listing(bucket, "deep/er/left-out", f"deep/er/{key}")
    system = serve(bucket.url())
    assert system.shared() == {"b.txt": 4, "deep/c.txt": 4}
    said = f"not shared: deep/er: it has the key {bucket.prefix}/deep/er/{key}, which is no path"
    assert said in system.err.text.splitlines()
    with Download(system.server_flags, ".", "-o", f"{tmp_path}/copy/") as download:
        assert download.wait() == 0, download.err.text
    assert {path.name for path in (tmp_path / "copy").rglob("*")} == {"b.txt", "deep", "c.txt"}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_no_path_beside_all_others(key: str, bucket: Bucket) -> None:
    """obstore lists none of them."""
    bucket.put("left-out", b"film")
    bucket.put("b.txt", b"text")
    bucket.proxy.fault = listing(bucket, "left-out", key)
    ended = run_msd("serve", *port_flags(), "-f", bucket.url())
    assert ended.returncode == 5
    reason = f"it has the key {bucket.prefix}/{key}, which is no path"
    assert ended.stderr == f"msd: {bucket.url()} at {bucket.proxy.url}: cannot be listed: {reason}\n"


def test_a_key_that_is_the_folder_of_others(bucket: Bucket, serve: Serve) -> None:
    bucket.put("a-b", b"film")
    bucket.put("a/b.txt", b"text")
    bucket.proxy.fault = listing(bucket, "a-b", "a")
    system = serve(bucket.url())
    assert system.shared() == {"a/b.txt": 4}
    assert "it is an object and the folder of others" in system.err.text + system.out.text
