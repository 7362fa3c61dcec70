"""The broker and its workers, with real processes: faults, signals, toggles and shutdown."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from msd.broker.operator.operator_client import OperatorClient
from msd.broker.supervision import until_done
from msd.wire.protocol.states import WantedState, WorkerState
from tests.processes import (
    MIB,
    MSD,
    TIMEOUT,
    Process,
    Serve,
    Source,
    System,
    files_equal,
    free_ports,
    is_free,
    run_msd,
    wait_for,
)

#: Factor for time limits, from MSD_TEST_TIME_FACTOR: more than 1 on slow machines.
TIME_FACTOR = TIMEOUT / 30
#: Seconds within which servers end after a client finished, if no worker is frozen.
SHUTDOWN_S = 1.0


def is_running(pid: int) -> bool:
    """Returns True if the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids(system: System) -> list[int]:
    return [worker.pid for worker in system.status().workers]


def end_by_signal(number: signal.Signals) -> Callable[[System], None]:
    return lambda system: system.signal(number)


def end_by_quit(system: System) -> None:
    assert run_msd("quit", *system.server_flags).returncode == 0


def end_by_line(system: System) -> None:
    system.write_stdin("-1\n")


def check_stays_up(system: System, seconds: float) -> None:
    """Reads the snapshots of the servers for ``seconds`` and checks that the servers are still running."""
    end = time.monotonic() + seconds
    with OperatorClient(system.servers) as operator:
        while time.monotonic() < end:
            operator.next_snapshot()
    assert system.process.poll() is None


def test_all_workers_end_with_a_killed_broker_even_frozen_workers(serve: Serve, source: Source) -> None:
    system = serve(source(MIB))
    workers = pids(system)
    os.kill(workers[1], signal.SIGSTOP)
    system.signal(signal.SIGKILL)
    wait_for("the workers to end", lambda: not any(map(is_running, workers)))
    assert system.wait() == -signal.SIGKILL
    wait_for("the ports to be free", lambda: all(map(is_free, [*system.ports, system.ports[4] + 1])))


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(end_by_signal(signal.SIGINT), 130, id="SIGINT"),
        pytest.param(end_by_signal(signal.SIGTERM), 143, id="SIGTERM"),
        pytest.param(
            end_by_signal(signal.SIGHUP),
            129,
            id="SIGHUP",
            marks=pytest.mark.skipif(
                signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="the tests are running under nohup"
            ),
        ),
        # Many other tests end servers in these ways.
        pytest.param(end_by_quit, 0, id="quit", marks=pytest.mark.soak),
        pytest.param(end_by_line, 0, id="-1", marks=pytest.mark.soak),
    ],
)
def test_every_way_to_stop_the_servers_is_orderly(
    serve: Serve, source: Source, end: Callable[[System], None], code: int
) -> None:
    system = serve(source(MIB), stdin=subprocess.PIPE)
    workers = pids(system)
    end(system)
    check_ended(system, workers, code)


@pytest.mark.alone
def test_servers_with_a_frozen_worker_stop_within_two_seconds(serve: Serve, source: Source) -> None:
    """The broker kills the frozen worker at the end of the grace period."""
    system = serve(source(MIB))
    workers = pids(system)
    os.kill(workers[0], signal.SIGSTOP)
    system.signal(signal.SIGTERM)
    began = time.monotonic()
    system.process.wait(10)
    assert time.monotonic() - began < 2 * TIME_FACTOR
    check_ended(system, workers, 143)


def check_ended(system: System, workers: list[int], code: int) -> None:
    """Waits for the servers to end, and checks that nothing is left of them."""
    assert system.wait() == code
    assert not any(map(is_running, workers))
    wait_for("the ports to be free", lambda: all(map(is_free, [*system.ports, system.ports[4] + 1])))
    assert "Traceback" not in system.err.text


def test_servers_started_with_nohup_ignore_sighup(source: Source, runtime_folder: Path) -> None:
    path, ports = source(1000), [*map(str, free_ports())]
    with Process(["nohup", *MSD, "serve", "--plain", "-f", str(path), "-p", *ports]) as process:
        wait_for("ready", lambda: any(line.startswith("ready") for _, line in [*process.out.lines]))
        process.process.send_signal(signal.SIGHUP)
        # If SIGHUP ended the broker, it would do so before the broker handled this request.
        assert run_msd("status", "-p", *ports).returncode == 0
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(TIMEOUT) == 143


def test_serve_restores_the_settings_of_the_terminal(serve: Serve, source: Source, runtime_folder: Path) -> None:
    """The servers run on a terminal; when they end, the terminal has its old settings again."""
    ports = free_ports()
    controller, terminal = pty.openpty()
    with closing(os.fdopen(controller, "rb", buffering=0)) as screen:
        before = termios.tcgetattr(terminal)
        process = subprocess.Popen(
            [*MSD, "serve", "-f", str(source(1000)), "-p", *map(str, ports)],
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        )  # fmt: skip
        shown = b""
        while b"ready" not in shown:
            shown += screen.read(4096)
        os.write(controller, b"-1\n")
        os.set_blocking(controller, False)
        assert process.wait(TIMEOUT) == 0
        assert termios.tcgetattr(terminal) == before
        os.close(terminal)


@pytest.mark.soak
def test_until_done_waits_for_other_clients(serve: Serve, source: Source, tmp_path: Path) -> None:
    """
    1. One client is frozen during its download.
    2. Another client finishes its download: the servers stay up for longer than a shutdown would take.
    3. The first client continues and finishes: the servers end.
    """
    path = source(24 * MIB)
    system = serve(path, "--until-done", "--rate", "8MiB", "-i", "0.1")
    with system.download("-o", "slow.bin", cwd=tmp_path) as slow:
        slow.wait_until_verified(0.1)
        slow.signal(signal.SIGSTOP)
        with system.download("-o", "fast.bin", cwd=tmp_path) as fast:
            fast.wait_until_done()
        check_stays_up(system, until_done.SETTLE_TIME_S + SHUTDOWN_S)
        slow.signal(signal.SIGCONT)
        slow.wait_until_done()
    assert system.wait() == 0
    assert files_equal(path, tmp_path / "slow.bin")


def test_until_done_waits_for_a_client_without_awake_workers(serve: Serve, source: Source, tmp_path: Path) -> None:
    """
    1. One client is frozen during its download, and another client finishes.
    2. All workers are put to sleep, the first client continues and worker 1 crashes: the servers stay up.
    3. The workers are woken up: the first client finishes and the servers end.
    """
    path = source(24 * MIB)
    system = serve(path, "--until-done", "--rate", "8MiB", "-i", "0.1")
    with system.download("-o", "slow.bin", cwd=tmp_path) as slow:
        slow.wait_until_verified(0.1)
        slow.signal(signal.SIGSTOP)
        with system.download("-o", "fast.bin", cwd=tmp_path) as fast:
            fast.wait_until_done()
        system.put_to_sleep(1, 2, 3, 4)
        slow.signal(signal.SIGCONT)
        system.kill(1)
        check_stays_up(system, until_done.SETTLE_TIME_S + SHUTDOWN_S)
        wait_for("the client to wait", lambda: slow.events_of("waiting"))
        system.wake(1, 2, 3, 4)
        slow.wait_until_done()
    assert system.wait() == 0
    assert files_equal(path, tmp_path / "slow.bin")


def test_a_worker_that_keeps_crashing_becomes_failed_and_a_toggle_starts_it(serve: Serve, source: Source) -> None:
    system = serve(source(1000))
    for _ in range(5):
        wait_for("worker 2 to be awake", lambda: system.worker(2).state == WorkerState.AWAKE)
        system.kill(2)
        wait_for("worker 2 to crash", lambda: system.worker(2).state in (WorkerState.DEAD, WorkerState.FAILED))
    failed = system.worker(2)
    assert (failed.state, failed.reason) == (WorkerState.FAILED, "killed by SIGKILL")
    assert system.states() == ["awake", "failed", "awake", "awake"]
    system.wake(2)
    assert system.states() == ["awake"] * 4


def test_a_frozen_worker_becomes_silent_and_is_not_killed(serve: Serve, source: Source) -> None:
    system = serve(source(1000))
    pid = system.worker(4).pid
    os.kill(pid, signal.SIGSTOP)
    wait_for("worker 4 to be silent", lambda: system.worker(4).state == WorkerState.SILENT)
    with OperatorClient(system.servers) as operator:
        toggled = operator.toggle(4, WantedState.ASLEEP)
    assert (toggled.state, toggled.reached) == (WorkerState.SILENT, False)
    os.kill(pid, signal.SIGCONT)
    wait_for("the toggle to take effect", lambda: system.worker(4).state == WorkerState.ASLEEP)
    assert system.worker(4).pid == pid


def test_a_worker_that_exceeds_the_hang_limit_is_restarted(
    runtime_folder: Path, source: Source, tmp_path: Path
) -> None:
    path = source(1000)
    (tmp_path / "config.toml").write_text("[broker]\nhang_limit = 1.5\n")
    with System(path, "-c", str(tmp_path / "config.toml")) as system:
        system.wait_until_ready()
        os.kill(system.worker(1).pid, signal.SIGSTOP)
        # On a busy machine the new process, too, may exceed the limit.
        wait_for(
            "a new process", lambda: system.worker(1).restarts >= 1 and system.worker(1).state == WorkerState.AWAKE
        )


def test_no_worker_is_killed_after_a_suspend_of_the_machine(
    runtime_folder: Path, source: Source, tmp_path: Path
) -> None:
    """The broker and its workers are stopped for longer than the hang limit, as on a suspended machine. The broker
    resumes first.
    """
    (tmp_path / "config.toml").write_text("[broker]\nhang_limit = 1.5\n")
    with System(source(1000), "-c", str(tmp_path / "config.toml"), "-i", "0.1") as system:
        system.wait_until_ready()
        workers = pids(system)
        for pid in (system.pid, *workers):
            os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        wait_for("the hang limit to pass", lambda: time.monotonic() - stopped > 2)
        for pid in (system.pid, *workers):
            os.kill(pid, signal.SIGCONT)
        wait_for("heartbeats from all workers", lambda: system.states() == ["awake"] * 4)
        check_stays_up(system, 1)
        assert [(worker.pid, worker.restarts) for worker in system.status().workers] == [(pid, 0) for pid in workers]


def test_a_frozen_worker_does_not_block_toggles_of_other_workers(serve: Serve, source: Source) -> None:
    system = serve(source(1000))
    os.kill(pids(system)[0], signal.SIGSTOP)
    toggled = run_msd("toggle", "1", "2", "3", "4", "--sleep", *system.server_flags)
    assert [line.split()[1] for line in toggled.stdout.splitlines()] == ["1:", "2:", "3:", "4:"]
    assert toggled.stdout.endswith("worker 2: asleep\nworker 3: asleep\nworker 4: asleep\n")
    assert (toggled.returncode, toggled.stderr) == (
        7,
        "msd: worker 1 did not change state within 3 s: see msd status\n",
    )


def test_status_watch_ends_with_the_servers(serve: Serve, source: Source) -> None:
    system = serve(source(1000), "-i", "0.1")
    with Process([*MSD, "status", "--watch", *system.server_flags]) as watch:
        wait_for("several tables", lambda: watch.out.text.count(" of 4 alive") > 3)
        system.signal(signal.SIGKILL)
        assert watch.wait() == 7
        expected = f"msd: server 5 at 127.0.0.1:{system.ports[4]} refuses the connection: is msd serve running there?"
        assert watch.err.text.startswith(expected)


def test_two_brokers_on_different_addresses_may_use_the_same_ports(serve: Serve, source: Source) -> None:
    path = source(1000)
    first = serve(path)
    with System(path, host="127.0.0.2", ports=first.ports) as second:
        second.wait_until_ready()
        second.process.terminate()
        second.wait()
    first.kill(2)
    wait_for("a new process", lambda: first.worker(2).restarts == 1 and first.worker(2).state == WorkerState.AWAKE)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(
    runtime_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal interrupts the demo during its download: the demo prints one message and leaves no process or file."""
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with Process([*MSD, "demo", "--size", "8MiB", "--seconds", "60"], env=environment) as demo:
        wait_for("the download", lambda: "Total: " in demo.err.text)
        children = [int(pid) for pid in Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()]
        assert len(children) == 4, "a broker, two workers that joined, a client"
        demo.signal(number)
        assert demo.wait() == 128 + number
        lines = demo.err.text.splitlines()
    assert lines[-1] == "msd: demo interrupted"
    assert lines.count("msd: demo interrupted") == 1
    assert not any(map(is_running, children))
    assert list((tmp_path / "tmp").iterdir()) == list(runtime_folder.iterdir()) == []


def test_only_the_first_20_files_that_cannot_be_shared_are_named(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "film.bin").write_bytes(b"x" * 1234)
    for index in range(1000):
        (folder / f"tab-{index}\t").touch()
    system = serve(folder, workers=1)
    wait_for("the last note", lambda: "indexed" in system.err.text)
    notes = system.err.text.splitlines()
    assert sum(note.endswith("its name contains control characters") for note in notes) == 20
    assert notes[-2:] == ["not shared: 980 more", "indexed 1 file, 1.2 KiB"]


def test_toggles_are_idempotent_and_survive_a_crash(serve: Serve, source: Source) -> None:
    """
    1. --sleep has no effect on a sleeping worker, and --wake has none on an awake worker.
    2. A worker that crashes while its wanted state is asleep comes back asleep.
    """
    system = serve(source(1000))
    server_flags = system.server_flags
    assert run_msd("toggle", "1", "2", "--sleep", *server_flags).stdout == "worker 1: asleep\nworker 2: asleep\n"
    assert run_msd("toggle", "1", "--sleep", *server_flags).stdout == "worker 1: asleep\n"
    assert run_msd("toggle", "3", "--wake", *server_flags).stdout == "worker 3: awake\n"
    system.kill(1)
    wait_for(
        "worker 1 to be restarted",
        lambda: system.worker(1).restarts == 1 and system.worker(1).state == WorkerState.ASLEEP,
    )
    assert run_msd("toggle", "1", *server_flags).stdout == "worker 1: awake\n"
    assert system.states() == ["awake", "asleep", "awake", "awake"]
    # If one number is wrong, no worker is toggled.
    unknown = run_msd("toggle", "1", "5", *server_flags)
    assert (unknown.returncode, unknown.stderr) == (2, "msd: no worker 5: the workers are numbered 1 to 4\n")
    assert system.states() == ["awake", "asleep", "awake", "awake"]
    assert run_msd("toggle", "all", "--wake", *server_flags).stdout == "".join(f"worker {n}: awake\n" for n in "1234")


def test_a_sleeping_workers_port_is_closed_but_reserved(serve: Serve, source: Source) -> None:
    system = serve(source(1000))
    system.put_to_sleep(2)
    with closing(socket.socket()) as probe:
        wait_for("the port to be closed", lambda: probe.connect_ex(("127.0.0.1", system.ports[1])) != 0)
    with closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", system.ports[1]))
    system.wake(2)


def test_a_full_output_pipe_does_not_stop_the_broker(serve: Serve, source: Source) -> None:
    """The standard output of the broker is a full pipe; ``msd toggle`` and ``msd quit`` still work."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 65536)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    server_flags = ["-p", *map(str, free_ports())]
    process = subprocess.Popen(
        [*MSD, "serve", "-f", str(source(1000)), *server_flags], stdout=writer, stdin=subprocess.DEVNULL
    )
    try:
        for _ in range(2):
            assert run_msd("toggle", "1", "2", "3", "4", "--sleep", *server_flags).returncode == 0
            assert run_msd("toggle", "1", "2", "3", "4", "--wake", *server_flags).returncode == 0
        assert run_msd("quit", *server_flags).returncode == 0
        assert process.wait(TIMEOUT) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)
