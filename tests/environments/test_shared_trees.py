"""Folders with names, permissions and links of all kinds, shared by a user who may not read everything there."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

from tests.environments.recipes import without_rights_to_files
from tests.processes import MIB, Serve, System, make_file, run_msd

#: Names of up to 255 bytes, which is the limit of most file systems.
NAMES = (" two  spaces ", "-rf", "*", "[x]", "~", "%41", "back\\slash", "a:b", "é", "e\u0301", "字" * 85, "n" * 255)
#: Names that cannot be shared.
BAD_NAMES = {
    "new\nline": "its name contains control characters",
    os.fsdecode(b"latin \xe9"): "its name is not UTF-8",
}
#: A file name in the cache of a model hub.
WEIGHTS = "model-00001-of-00002.safetensors"


def download(system: System, *names: str, folder: Path) -> dict[str, bytes]:
    """Downloads everything into a folder; returns the contents of the files by name."""
    result = run_msd("download", *names, "-o", f"{folder}/", "--quiet", *system.server_flags)
    assert result.returncode == 0, result.stderr
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_out(system: System) -> set[str]:
    """What the servers say that they do not share."""
    prefix = "not shared: "
    return {line.removeprefix(prefix) for line in system.err.text.splitlines() if line.startswith(prefix)}


def test_all_kinds_of_names_permissions_and_links(serve: Serve, tmp_path: Path) -> None:
    root, copy = tmp_path / "shared", tmp_path / "copy"
    expected: dict[str, bytes] = {}

    def put(name: str, mode: int = 0o644) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
        expected[name] = os.fsencode(name)
        path.chmod(mode)
        return path

    for name in NAMES:
        put(f"names/{name}")
    put("run", 0o755)
    put("setuid", 0o4755)
    os.utime(put("before 1970"), ns=(-5, -5))
    os.utime(put("after 2038"), ns=(4102444800_123456789, 4102444800_123456789))
    put("linked/from")
    (root / "linked" / "file").symlink_to("from")
    (root / "linked folder").symlink_to("linked")
    expected |= dict.fromkeys(["linked/file", "linked folder/from", "linked folder/file"], b"linked/from")
    (root / "empty" / "folder").mkdir(parents=True)
    shared = dict(expected)
    for name in BAD_NAMES:
        put(name)
        put(f"folder {name}/file")
    put("secret", 0)
    put("locked/file").parent.chmod(0)
    (root / "linked" / "into locked").symlink_to("../locked/file")
    os.mkfifo(root / "fifo")
    (root / "way out").symlink_to("/etc/passwd")
    (root / "broken").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    (root / "here").symlink_to(".")
    try:
        system = serve(root, workers=1, wrapper=without_rights_to_files())
    finally:
        (root / "locked").chmod(0o700)
    unreadable = ("secret", "locked", "linked/into locked", "linked folder/into locked")
    assert left_out(system) == {
        "1 link that leads out, 1 broken link, 2 links into a loop, 1 pipe, socket or device (--follow-links)",
        *(f"{ascii(name)[1:-1]}: {reason}" for name, reason in BAD_NAMES.items()),
        *(f"{ascii(f'folder {name}')[1:-1]}: {reason}" for name, reason in BAD_NAMES.items()),
        *(f"{name}: Permission denied" for name in unreadable),
    }
    assert download(system, "**", folder=copy) == shared
    assert (copy / "empty" / "folder").is_dir()
    for name in shared:
        before, after = (root / name).stat(), (copy / name).stat()
        assert after.st_mtime_ns == before.st_mtime_ns, name
        assert after.st_mode & stat.S_IXUSR == before.st_mode & stat.S_IXUSR, name
    assert not (copy / "setuid").stat().st_mode & stat.S_ISUID


def test_the_cache_of_a_model_hub_is_shared_whole(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    """Its snapshots are folders of links to blobs. A snapshot alone needs ``--follow-links``. No blob is read twice."""
    model = tmp_path / "models--org--name"
    sizes = {"1": 3 * MIB, "2": 100, "3": 101}
    blobs = {name: make_file(model / "blobs" / name, size, rng) for name, size in sizes.items()}
    for snapshot, config in (("abc", "2"), ("def", "3")):
        for name, blob in ((WEIGHTS, "1"), ("config.json", config)):
            link = model / "snapshots" / snapshot / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"../../blobs/{blob}")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc")
    expected = {WEIGHTS: blobs["1"].read_bytes(), "config.json": blobs["2"].read_bytes()}

    whole = serve(model, workers=1)
    assert "indexed 8 files, 9.0 MiB (3.0 MiB read)" in whole.err.text
    assert left_out(whole) == set()
    found = download(whole, "snapshots/abc/", folder=tmp_path / "whole")
    assert found == {f"snapshots/abc/{name}": content for name, content in expected.items()}

    alone = serve(model / "snapshots" / "abc", "--follow-links", workers=1)
    assert left_out(alone) == set()
    assert download(alone, "**", folder=tmp_path / "alone") == expected
