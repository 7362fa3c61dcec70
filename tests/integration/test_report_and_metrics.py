"""Reports of real downloads and their charts, and the metrics endpoint of the servers."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import urllib.request
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from msd.client.display.live_layout import LiveLayout
from msd.client.display.printers import metric_lines, result_lines
from msd.client.events import Event, Progress
from msd.client.operations.download import download
from msd.client.report.chart import plot
from msd.client.report.chart_data import chart_data
from msd.client.report.rate_meter import SETTLING_S
from msd.client.report.report_file import ReportFile
from msd.wire.errors import UsageError
from msd.wire.support.units import format_kb_rate, format_rate
from tests.processes import (
    MIB,
    MSD,
    Download,
    Process,
    Serve,
    Source,
    free_ports,
    is_free,
    make_file,
    run_msd,
    wait_for,
)

RATE = ("--rate", "8MiB")


def read_report(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def test_the_report_of_a_download_with_a_killed_worker_is_drawn(serve: Serve, source: Source, tmp_path: Path) -> None:
    """
    1. Worker 2 is put to sleep, worker 3 is killed, and worker 2 is woken up.
    2. The report contains the fields of ``done`` and the events with their times.
    3. ``msd plot`` draws a chart from the report.
    """
    system = serve(source(32 * MIB), *RATE)
    with system.download("-o", "copy.bin", "--report", "report.json", cwd=tmp_path) as client:
        client.wait_until_verified(0.2)
        system.put_to_sleep(2)
        client.wait_until_verified(0.4)
        system.kill(3)
        client.wait_until_verified(0.6)
        system.wake(2)
        done = client.wait_until_done()
    report = read_report(tmp_path / "report.json")
    assert {**{key: done[key] for key in done.keys() - {"event", "at"}}, "version": 1}.items() <= report.items()
    assert report["retries"]["lost"] >= 1
    assert 0 < report["rate_p50"] <= report["rate_peak"] < 64 * MIB
    events = report["events"]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    samples = [event for event in events if event["event"] == "progress"]
    # Not the times of the records: a busy machine may delay the first of two.
    gaps = [after["seconds"] - before["seconds"] for before, after in pairwise(samples[:-1])]
    assert min(gaps) > 0.099
    assert samples[-1]["bytes"] == 32 * MIB
    states = {(event["name"], event["state"]) for event in events if event["event"] == "worker"}
    assert {("2", "asleep"), ("3", "lost"), ("2", "ready")} <= states
    drawn = run_msd("plot", "report.json", "-o", "run.svg", cwd=tmp_path)
    assert (drawn.returncode, drawn.stdout, drawn.stderr) == (0, "", "")
    assert 10_000 < (tmp_path / "run.svg").stat().st_size < 300_000


def test_all_outputs_show_the_same_true_rates(serve: Serve, source: Source, tmp_path: Path) -> None:
    """Live view, result line, metric lines, report and chart, of one download at 8 MiB/s."""
    servers = serve(source(28 * MIB), "--rate", "2MiB").servers
    events: list[Event] = []
    report_file = ReportFile(str(tmp_path / "report.json"))
    with report_file:
        record = report_file.recorder(events.append)
        result = download(servers, output=tmp_path / "copy.bin", interval=0.0, on_event=record)
        report_file.write(result)
    report = read_report(tmp_path / "report.json")
    progress = [event for event in events if isinstance(event, Progress)]
    average = 28 * MIB / progress[-1].seconds
    # The first segments are sent at once, so 12 MiB arrive in the first second; afterwards the rate is at the limit.
    assert 0.5 * 8 * MIB < average < 1.3 * 8 * MIB
    assert f"verified in {progress[-1].seconds:.2f} s, {format_rate(average)} (" in result_lines(result)
    assert metric_lines(progress[-1]).endswith(f", download speed: {format_kb_rate(average)}")
    assert report["rate"] == round(average)
    highest = max((each for each in progress if each.seconds >= SETTLING_S), key=lambda each: each.current_rate)
    peak = highest.current_rate
    assert average < peak < 1.1 * 12 * MIB
    assert report["rate_peak"] == round(peak)
    rates = chart_data(report["events"]).rates
    assert max(map(sum, zip(*rates.values(), strict=True))) == pytest.approx(peak, abs=4)
    view = LiveLayout()
    for event in [*events[: events.index(highest)], highest]:
        view.handle(event, 0.0)
    assert f"  {format_rate(peak)}  " in view.lines(120, 20, 0.0)[1].plain


def test_a_download_prints_a_line_about_its_retries(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(16 * MIB), "--rate", "2MiB")
    arguments = ["download", *system.server_flags, "-i", "0.05", "-o", "copy.bin"]
    with Process([*MSD, *arguments], cwd=tmp_path) as client:
        wait_for("data", lambda: "Total: 1" in client.err.text or None)
        system.kill(1, 2)
        assert client.wait() == 0
    first, second = client.out.text.splitlines()
    assert "verified in" in first
    assert "retried segments: " in second
    assert "(connection lost)" in second
    assert "median " in second


def test_a_complete_download_has_its_result_line_even_if_the_report_cannot_be_written(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    system = serve(source(MIB), workers=1)
    flags = [*system.server_flags, "-o", "copy.bin", "--report"]
    failed = run_msd("download", *flags, "/proc/report.json", cwd=tmp_path)
    assert (failed.returncode, (tmp_path / "copy.bin").exists()) == (6, False), failed.stderr
    done = run_msd("download", *flags, "/dev/full", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "copy.bin").exists()) == (6, True), done.stderr
    assert done.stdout.startswith("copy.bin: 1.0 MiB verified in ")
    assert "msd: /dev/full: cannot write the report: No space left on device" in done.stderr


def test_an_interrupted_download_writes_a_report(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(24 * MIB), *RATE, workers=1)
    with system.download("-o", "copy.bin", "--report", "report.json", cwd=tmp_path) as client:
        client.wait_until_verified(0.2)
        client.signal(signal.SIGINT)
        assert client.wait() == 130
    report = read_report(tmp_path / "report.json")
    assert report["error"]["code"] == 130
    assert report["rate_p50"] > 0
    assert {event["event"] for event in report["events"]} >= {"start", "worker", "progress"}
    plot(str(tmp_path / "report.json"), str(tmp_path / "run.png"))
    assert {*os.listdir(tmp_path)} >= {".copy.bin.msd-part", "report.json", "run.png"}


def test_a_download_without_servers_reports_how_long_it_waited(tmp_path: Path) -> None:
    nowhere = ["-p", *map(str, free_ports())]
    with Download(nowhere, "--timeout", "1.2", "--report", "report.json", cwd=tmp_path) as client:
        assert client.wait() == 7
    report = read_report(tmp_path / "report.json")
    assert report["error"]["code"] == 7
    assert report["waited_seconds"] == pytest.approx(1.2, abs=0.5)
    with pytest.raises(UsageError, match="nothing to draw: the download transferred nothing"):
        plot(str(tmp_path / "report.json"), str(tmp_path / "run.svg"))


def with_metrics(tmp_path: Path, rng: random.Random) -> tuple[Path, tuple[int, ...]]:
    """Writes a configuration with a metrics port. Returns its path and the ports; the sixth is the metrics port."""
    make_file(tmp_path / "Star.mp4", MIB, rng)
    chosen = free_ports()
    ports = (*chosen, wait_for("another port", lambda: next((p for p in free_ports() if p not in chosen), None)))
    blocks = "".join(f"[[workers]]\nport = {port}\n" for port in ports[:4])
    config = tmp_path / "servers.toml"
    broker = f"[broker]\nstatus_port = {ports[4]}\nmetrics_port = {ports[5]}\n"
    config.write_text(f'[share]\npath = "Star.mp4"\n{broker}{blocks}')
    return config, ports


def test_metrics_show_a_sleeping_worker_and_the_port_is_free_afterwards(
    runtime_folder: Path, tmp_path: Path, rng: random.Random
) -> None:
    config, ports = with_metrics(tmp_path, rng)

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[5]}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    with Process([*MSD, "serve", "-c", str(config)]) as servers:
        wait_for("ready", lambda: servers.out.text.startswith("ready"))
        text = scrape()
        assert all(f'msd_worker_up{{worker="{number}"}} 1.0' in text for number in "1234")
        assert run_msd("toggle", "2", "-c", str(config)).returncode == 0
        assert run_msd("download", "-c", str(config), "-o", "copy", "--quiet", cwd=tmp_path).returncode == 0
        text = scrape()
        assert 'msd_worker_up{worker="2"} 0.0' in text
        assert 'msd_worker_state{state="asleep",worker="2"} 1.0' in text
        assert "msd_files 1.0" in text
        assert "mp4" not in text
        assert run_msd("quit", "-c", str(config)).returncode == 0
        assert servers.wait() == 0
    assert is_free(ports[5])
    assert "Traceback" not in servers.err.text


def test_a_metrics_port_in_use_is_a_usage_error(runtime_folder: Path, tmp_path: Path, rng: random.Random) -> None:
    config, ports = with_metrics(tmp_path, rng)
    with closing(socket.create_server(("127.0.0.1", ports[5]))):
        busy = run_msd("serve", "-c", str(config))
    assert (busy.returncode, busy.stdout) == (2, "")
    assert busy.stderr.startswith(f"msd: port {ports[5]} (metrics) is in use by ")
    text = config.read_text()
    config.write_text(text.replace(f"metrics_port = {ports[5]}", f"metrics_port = {ports[4] + 1}"))
    twice = run_msd("serve", "-c", str(config))
    assert twice.returncode == 2
    assert f"port {ports[4] + 1} is given twice: for the control port and for the metrics port" in twice.stderr


def test_metrics_without_prometheus_client_are_a_usage_error(
    runtime_folder: Path, tmp_path: Path, rng: random.Random
) -> None:
    config, ports = with_metrics(tmp_path, rng)
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "prometheus_client.py").write_text("raise ImportError")
    refused = run_msd("serve", "-c", str(config), env={**os.environ, "PYTHONPATH": str(missing)})
    assert refused.returncode == 2
    assert refused.stderr == (
        "msd: metrics_port requires prometheus_client: remove metrics_port from the configuration, or run: "
        f"{sys.executable} -m pip install prometheus_client\n"
    )
    assert is_free(ports[5])
