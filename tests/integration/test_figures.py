"""Every figure that several places show is the same in all of them: live view, result, metric lines, JSON, report and
chart of a download, and status, access log and metrics of the servers.
"""

from __future__ import annotations

import json
import re
import shlex
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from msd.client.display.files_text import files_result
from msd.client.display.live_layout import LiveLayout
from msd.client.display.printers import JsonPrinter, metric_lines, result_lines
from msd.client.events import Event, FilesReport, OnEvent, Progress, Report, Started, WorkerProgress, WorkerReport
from msd.client.operations.download import download
from msd.client.operations.download_files import download_files
from msd.client.operations.progress_reports import ProgressReports
from msd.client.report.chart import _title
from msd.client.report.chart_data import chart_data
from msd.client.report.report_file import ReportFile
from msd.wire.config.servers import locate_servers
from msd.wire.config.settings import Config
from msd.wire.protocol.messages import DownloadProgress
from msd.wire.support.units import format_duration, format_kb, format_kb_rate, format_percent, format_rate, format_size
from tests.corrupting_relay import Relay
from tests.processes import MIB, Serve, Source, System, free_ports, make_file, run_msd, wait_for


class Servers:
    """Servers with an access log and metrics."""

    def __init__(self, serve: Serve, path: Path, folder: Path) -> None:
        folder.mkdir()
        self._metrics_port = free_ports()[0]
        settings = f"[broker]\naccess_log = 'access.log'\nmetrics_port = {self._metrics_port}\n"
        (folder / "config.toml").write_text(settings)
        self._access_log = folder / "access.log"
        self.system: System = serve(path, "-c", str(folder / "config.toml"), "-i", "0.2", "--rate", "4MiB")

    def ended_download(self) -> dict[str, Any]:
        """The only download, as ``msd status --json`` shows it once it has ended."""

        def ended() -> dict[str, Any] | None:
            printed = run_msd("status", "--json", *self.system.server_flags)
            found: list[dict[str, Any]] = json.loads(printed.stdout)["downloads"]
            return next((each for each in found if each["state"] == "done"), None)

        return wait_for("the end of the download", ended)

    def access_fields(self) -> dict[str, str]:
        line = wait_for("a line in the access log", self._access_log.read_text)
        return dict(word.split("=", 1) for word in shlex.split(line)[1:])

    def metrics(self) -> dict[str, float]:
        """The metrics without labels, once the download is counted."""

        def counted() -> dict[str, float] | None:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=10) as answer:
                families = [*text_string_to_metric_families(answer.read().decode())]
            found = {each.name: each.value for family in families for each in family.samples if not each.labels}
            return found if found["msd_downloads_done_total"] else None

        return wait_for("the metrics of the download", counted)


class Recording:
    """A download as all places show it that belong to the client. ``live`` is the live view of its last progress."""

    def __init__(self, folder: Path, run: Callable[[OnEvent], Report | FilesReport]) -> None:
        self.last: Progress
        self.live = ""
        view = LiveLayout()

        def show(event: Event) -> None:
            now = time.monotonic()
            printer.on_event(event)
            view.handle(event, now)
            if isinstance(event, Progress):
                self.last, self.live = event, "\n".join(line.plain for line in view.lines(120, 40, now))

        printer, file = JsonPrinter(), ReportFile(str(folder / "report.json"))
        with file:
            self.result = run(file.recorder(show))
            file.write(self.result)
        printer.on_done(self.result)
        self.report: dict[str, Any] = json.loads((folder / "report.json").read_text())


def check_common(recording: Recording, printed: str, servers: Servers) -> None:
    """Checks the figures of a download of one file, and of several. ``printed`` is what ``--json`` prints."""
    last, result, report = recording.last, recording.result, recording.report
    events = [*map(json.loads, printed.splitlines())]
    done, progress = events[-1], [event for event in events if event["event"] == "progress"][-1]
    sample = [event for event in report["events"] if event["event"] == "progress"][-1]
    status, line, metrics = servers.ended_download(), servers.access_fields(), servers.metrics()

    assert {key: value for key, value in done.items() if key != "event"}.items() <= report.items()
    assert {key: value for key, value in sample.items() if key != "at"} == progress
    assert last.bytes == progress["bytes"] == status["bytes"] == int(line["bytes"]) == status["total"]
    received = result.received_bytes
    assert received == last.received_bytes == progress["received_bytes"] == report["received_bytes"]
    assert received == status["received"] == int(line["received"]) == metrics["msd_downloads_received_bytes_total"]
    assert result.wasted_bytes == last.wasted_bytes == progress["wasted_bytes"] == report["wasted_bytes"]
    assert result.reused_bytes == last.reused_bytes == progress["reused_bytes"] == report["reused_bytes"]

    assert result.transfer_seconds == pytest.approx(last.seconds, abs=1e-9)
    assert progress["seconds"] == round(report["transfer_seconds"], 3)
    assert f"  {format_duration(last.seconds)} elapsed" in recording.live
    assert status["seconds"] == pytest.approx(report["seconds"], abs=0.1)
    assert line["seconds"] == f"{status['seconds']:.1f}"
    assert result.rate == last.rate == pytest.approx(status["rate"])
    assert report["rate"] == progress["rate"] == round(last.rate)

    delivered = {worker.name: worker.received for worker in last.workers}
    assert delivered == {name: worker["bytes"] for name, worker in report["workers"].items()}
    assert delivered == {name: worker["received"] for name, worker in progress["workers"].items()}
    curves = chart_data(report["events"]).received
    assert delivered == {name: round(sizes[-1]) for name, sizes in curves.items()}
    senders = [name for name, size in delivered.items() if size]
    assert len(senders) == status["workers"] == int(line["workers"])
    assert status["peers"] == status["peer_bytes"] == metrics["msd_downloads_peer_bytes_total"] == 0
    assert line.items() >= {"peers": "0", "peer_bytes": "0"}.items()
    for worker in last.workers:
        row = rf"(?m)^worker {worker.name} +ready +{format_rate(worker.rate)} +{format_size(worker.received)} +0 B$"
        assert re.search(row, recording.live)
        kilobytes = f"Server{worker.name}: {format_kb(worker.received)}/{format_kb(worker.assigned)}, "
        assert f"{kilobytes}download speed: {format_kb_rate(worker.rate)}\n" in metric_lines(last)
    shown = f"{format_size(last.bytes)} of {format_size(last.total)}  {format_rate(last.current_rate)}  "
    assert shown in recording.live
    assert f"{format_percent(last.bytes, last.total):>6}\n" in recording.live
    assert f"Total: {format_kb(last.bytes)}, download speed: {format_kb_rate(last.rate)}" in metric_lines(last)


def test_all_places_show_the_same_figures_of_a_file(
    serve: Serve, source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quarter of the file is on the disk, and a worker sends a corrupt segment."""
    path = source(16 * MIB)
    copy = tmp_path / "copy.bin"
    copy.write_bytes(path.read_bytes()[: 4 * MIB] + bytes(12 * MIB))
    servers = Servers(serve, path, tmp_path / "servers")
    ports = servers.system.ports
    relayed = free_ports()[0]
    with Relay(relayed, ports[1], corrupt_every=1000):
        through = locate_servers(Config(), host="127.0.0.1", ports=(ports[0], relayed, *ports[2:]), server5=None)
        recording = Recording(
            tmp_path, lambda on_event: download(through, output=copy, update=True, interval=0.0, on_event=on_event)
        )
    assert copy.read_bytes() == path.read_bytes()
    check_common(recording, capsys.readouterr().out, servers)
    last, result = recording.last, recording.result
    assert isinstance(result, Report)
    text = result_lines(result)
    assert result.reused_bytes >= 4 * MIB
    assert result.wasted_bytes > 0
    assert result.bytes == recording.report["bytes"] == last.bytes == 16 * MIB
    assert result.received_bytes + result.reused_bytes == result.bytes + result.wasted_bytes
    assert f"  {format_size(result.received_bytes)} received  " in recording.live
    assert f"{format_size(result.reused_bytes)} reused from disk" in recording.live
    assert f"disk {format_size(result.reused_bytes)})" in text
    for wasted in (recording.live, text):
        assert f"{format_size(result.wasted_bytes)} wasted (duplicate, corrupt or outdated)" in wasted
    verified = f"{format_size(16 * MIB)} verified in {last.seconds:.2f} s, {format_rate(last.rate)}"
    assert f": {verified} (" in text
    assert _title(recording.report) == f"{path.name}: {verified}"
    for name, worker in result.workers.items():
        assert (f"worker {name} {format_size(worker.bytes)}" in text) == bool(worker.bytes)
    assert servers.ended_download()["files"] == int(servers.access_fields()["files"]) == 1


def test_all_places_show_the_same_figures_of_several_files(
    serve: Serve, tmp_path: Path, rng: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    for number in range(12):
        make_file(shared / f"{number}.jpg", 3000 + number, rng)
    make_file(shared / "film.mkv", 4 * MIB, rng)
    servers = Servers(serve, shared, tmp_path / "servers")
    output = tmp_path / "copies"

    def fetch(names: list[str], on_event: OnEvent) -> FilesReport:
        return download_files(servers.system.servers, names, output=output, on_event=on_event)

    recording = Recording(tmp_path, lambda on_event: fetch(["."], on_event))
    check_common(recording, capsys.readouterr().out, servers)
    last, result = recording.last, recording.result
    assert isinstance(result, FilesReport)
    assert last.files is not None
    size = sum(path.stat().st_size for path in shared.iterdir())
    assert result.counts.size == recording.report["bytes"] == last.bytes == size
    assert result.counts == last.files.counts
    assert recording.report["files"] == {"listed": 13, "fetched": 13, "kept": 0, "same": 0, "failed": 0}
    assert "13 of 13 files\n" in recording.live
    assert "\n13 of 13 files, " in metric_lines(last)
    verified = f"{format_size(size)} verified in {last.seconds:.2f} s, {format_rate(last.rate)}"
    assert files_result(result).startswith(f"13 files, {verified} (13 fetched)")
    assert _title(recording.report) == f"13 files: {verified}"
    assert servers.ended_download()["files"] == int(servers.access_fields()["files"]) == 13


def test_all_places_show_the_same_figures_of_peers() -> None:
    """Of three peers that were asked, two have sent something."""
    sizes = {"1": 8 * MIB, "peer 7": 3 * MIB, "peer 9": 2 * MIB, "peer 11": 0}
    workers = tuple(WorkerProgress(name, size, size, 0.0) for name, size in sizes.items())
    last = Progress(13 * MIB, 13 * MIB, 0, 0, 2.0, 6.5 * MIB, workers, received_bytes=13 * MIB)
    reports = {name: WorkerReport(bytes=size) for name, size in sizes.items()}
    result = Report("film", Path("film"), "", 13 * MIB, 2.0, 13 * MIB, 0, 0, reports, transfer_seconds=2.0)
    started = Started("film", Path("film"), "", 13 * MIB, 13)
    view, sent = LiveLayout(), list[DownloadProgress]()
    pool: Any = SimpleNamespace(session=1, peers=object(), report_progress=sent.append)
    told = ProgressReports(pool, "")
    for event in (started, last):
        view.handle(event, 0.0)
        told.handle(event)
    told.end()
    assert "\n2 peers   0 sending      0 B/s   5.0 MiB        0 B" in "\n".join(
        line.plain for line in view.lines(80, 24, 0.0)
    )
    assert f"\nPeers (2): {format_kb(5 * MIB)}/" in metric_lines(last)
    assert "(worker 1 8.0 MiB, 2 peers 5.0 MiB)" in result_lines(result)
    assert (sent[-1].workers, sent[-1].peers, sent[-1].peer_bytes) == (1, 2, 5 * MIB)
