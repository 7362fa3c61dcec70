"""Nothing is received twice from healthy workers, even if other processes keep all processors busy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from msd.client.operations.download import download
from msd.client.operations.download_files import download_files
from tests.processes import MIB, Serve, Source

SIZES = (12 * MIB, 28 * MIB, 50 * MIB)
#: Maximum share of the received bytes that are duplicates: of 50 downloads of each size, and of ten (five segments; the
#: machine may have other work, too).
MAX_WASTE, MAX_WASTE_OF_TEN = 0.005, 0.01
#: The same of a folder of small files, with a few bundles at the end; 0.2 when hedges did not wait for the listing.
MAX_WASTE_OF_SMALL_FILES = 0.06


@pytest.fixture
def _busy_processors() -> Iterator[None]:
    """Two processes that use all the processor time they get."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wasted_bytes(size: int, downloads: int, serve: Serve, source: Source, folder: Path) -> int:
    """Returns how many bytes several downloads of one file receive twice."""
    system = serve(source(size))
    wasted = 0
    for _ in range(downloads):
        report = download(system.servers, output=folder / "copy.bin", force=True, sync=False)
        wasted += report.wasted_bytes
    return wasted


@pytest.mark.alone
@pytest.mark.usefixtures("_busy_processors")
def test_short_downloads_on_busy_processors_receive_nothing_twice(serve: Serve, source: Source, tmp_path: Path) -> None:
    assert wasted_bytes(SIZES[-1], 10, serve, source, tmp_path) <= MAX_WASTE_OF_TEN * 10 * SIZES[-1]


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.usefixtures("_busy_processors")
@pytest.mark.parametrize("size", SIZES)
def test_fifty_downloads_on_busy_processors_receive_nothing_twice(
    serve: Serve, source: Source, tmp_path: Path, size: int
) -> None:
    assert wasted_bytes(size, 50, serve, source, tmp_path) <= MAX_WASTE * 50 * size


@pytest.mark.soak
@pytest.mark.alone
def test_thousands_of_small_files_hardly_arrive_twice(serve: Serve, tmp_path: Path) -> None:
    """Bundles are requested while the listing goes on: a worker without work waits for the next one."""
    folder = tmp_path / "tree"
    for number in range(25):
        (folder / str(number)).mkdir(parents=True)
        for file in range(1000):
            (folder / str(number) / str(file)).write_bytes(b"%d of %d " % (file, number) * 30)
    report = download_files(serve(folder).servers, ["."], output=tmp_path / "copy", sync=False)
    assert report.wasted_bytes <= MAX_WASTE_OF_SMALL_FILES * report.received_bytes
