"""A failing command prints one line that says what is wrong and what to do, and exits with the documented code."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from msd.cli import _run
from tests.processes import MIB, MSD, Download, Process, Serve, Source, free_ports, make_file, run_msd, wait_for


def nowhere() -> list[str]:
    """Flags with ports on which nothing listens."""
    return ["-p", *map(str, free_ports())]


def check_failure(*arguments: str, code: int, message: str, cwd: Path) -> None:
    """Checks that the command fails with this exit code and prints one line that contains ``message``."""
    result = run_msd(*arguments, cwd=cwd)
    assert result.returncode == code, result.stderr
    check_output(arguments, result.stdout, result.stderr, code, message)


def check_output(arguments: Sequence[str], out: str, err: str, code: int, message: str) -> None:
    assert message in err
    assert err.startswith("msd: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err + out
    if "-" in arguments:
        assert out == "", "the file goes there"
    elif "--json" in arguments:
        (last,) = [event for event in map(json.loads, out.splitlines()) if event["event"] == "error"]
        assert (last["event"], last["code"]) == ("error", code)
        assert message in last["message"]


@pytest.fixture
def _signal_handlers() -> Iterator[None]:
    """Restores the signal handlers of this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("serve", 2, "nothing to share: give a file or folder as PATH, or [share] path in config.toml"),
        ("serve -f nowhere", 2, "nowhere: no such file or folder to share: check the path"),
        ("serve film nowhere", 2, "nowhere: no such file or folder to share: check the path"),
        ("serve film -f ./film", 2, "would both be shared as film: rename one of them"),
        ("serve -c share.toml", 2, "[share] path in share.toml names it: change it, or run msd serve PATH"),
        ("serve -f film -n 3 -p 21001 21002 21003 21004 21005", 2, "3 workers and server 5 need 4 ports, but -p has 5"),
        ("serve -f film -n 0", 2, "a broker without workers shares nothing: leave out the path"),
        ("serve -f film -n 0 -p 21001", 2, "a broker without workers shares nothing: leave out the path"),
        ("serve -n 0 -p 21001 21002", 2, "server 5 alone needs 1 port, but -p has 2"),
        ("serve -f film -p 21001", 2, "4 workers and server 5 need 5 ports, but -p has 1"),
        ("list -p 21001", 2, "-p takes the port of each worker and of server 5"),
        ("serve -f film -f film", 2, "-f is given 2 times: give it once"),
        ("download -o a --output b", 2, "-o is given 2 times: give it once"),
        ("serve -f film -p 21001 21002 21003 21004 70000", 2, "70000 is not a valid port; ports range from 1 to 65535"),
        ("serve -f film -p 21001 21002 21003 21004 0", 2, "0 is not a valid port"),
        ("serve -f film -p 21001 21002 21002 21004 21005", 2, "port 21002 is given twice"),
        ("serve -f film -p 21001 21002 21003 21006 21005", 2, "port 21006 is given twice: for worker 4 and for the c"),
        ("serve -f film -p 21001 21002 21003 21004", 2, "4 workers and server 5 need 5 ports, but -p has 4"),
        ("serve -p 21001 21002 21003 21004 -f film", 2, "4 workers and server 5 need 5 ports, but -p has 4"),
        ("download --json -p 1", 2, "-p takes the port of each worker and of server 5"),
        ("download --json -p", 2, "-p takes the port of each worker and of server 5"),
        ("download -p a b c d e", 2, "-p takes the port of each worker and of server 5"),
        ("download -i x", 2, "msd: -i x: must be a number (see msd download --help)"),
        ("download --timeout it's", 2, "msd: --timeout it's: must be a number"),
        ("serve -n 3.5", 2, "msd: -n 3.5: must be a whole number (see msd serve --help)"),
        ("keys admit x --role boss", 2, "msd: --role boss: must be one of 'client', 'operator', 'worker'"),
        ("plot -p 1 2", 2, "no such option -p"),
        ("serve -f film --rate fast", 2, "--rate fast: must be a number of bytes"),
        ("serve -f film -i 0", 2, "-i 0.0: must be a number of seconds"),
        ("serve -f fifo", 2, "not a regular file"),
        ("sevre", 2, "did you mean 'serve'"),
        ("toggle", 2, "which workers? give their numbers or names, such as 1 3, or all"),
        ("toggle --wake", 2, "which workers?"),
        ("toggle -1", 2, "-1 is not a worker: give numbers, such as 1 3, or all; msd quit stops the servers"),
        ("toggle 1 --sleep --wake", 2, "contradict each other"),
        ("download --frobnicate", 2, "no such option --frobnicate"),
        ("download --json --frobnicate", 2, "no such option --frobnicate"),
        ("download --json -c missing.toml", 2, "missing.toml: no such file"),
        ("status --json -c missing.toml", 2, "missing.toml: no such file"),
        ("download -c missing.toml", 2, "missing.toml: no such file"),
        ("download -c section.toml", 2, "unknown section 'brokr'; did you mean broker?"),
        ("download -c key.toml", 2, "unknown key 'status_prot' in [broker]; did you mean status_port?"),
        ("download -c value.toml", 2, "status_port = 'x': must be a port from 1 to 65535"),
        ("download -c syntax.toml", 2, "not valid TOML"),
        ("download -o film/copy", 2, "film is not a folder: choose another path (-o)"),
        ("download -o missing/copy", 2, "missing: no such folder: create it"),
        (
            "download -o film",
            2,
            "film exists: choose another path, bring it up to date or replace it (-o, --update, --force)",
        ),
        ("download -o film/", 2, "film is not a folder: choose another path (-o)"),
        ("download --id 12", 2, "msd: --id 12: an id has 64 hexadecimal digits, of which at least the first 6"),
        ("download --server5 7000", 2, "--server5 '7000' is not HOST or HOST:PORT"),
        ("download --server5 no-such-host.invalid:39223", 2, "unknown host"),
        ("download -i 0", 2, "-i 0: must be more than 0 seconds"),
        ("download --timeout nan", 2, "--timeout nan: must be more than 0 seconds"),
        ("download -o - --json", 2, "both write to standard output"),
        ("download -o fifo --update", 2, "is a stream, which cannot be updated: choose a file (-o, --update)"),
        ("download --report missing/report", 2, "must be a file in an existing folder"),
        ("download --json --quiet", 2, "contradict each other"),
        ("download --quiet --verbose", 2, "contradict each other"),
        ("demo --size 0", 2, "--size 0: must be at least 1MiB"),
    ],
)
@pytest.mark.usefixtures("_signal_handlers")
def test_a_usage_error_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    code: int,
    message: str,
) -> None:
    """The command runs in this process: it ends before it starts another one."""
    (tmp_path / "film").write_bytes(b"film")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "share.toml").write_text('[share]\npath = "nowhere"\n')
    (tmp_path / "section.toml").write_text("[brokr]\n")
    (tmp_path / "key.toml").write_text("[broker]\nstatus_prot = 1\n")
    (tmp_path / "value.toml").write_text('[broker]\nstatus_port = "x"\n')
    (tmp_path / "syntax.toml").write_text("[broker\n")
    words = arguments.split()
    if "fifo" in words and words[0] == "serve":
        words += nowhere()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["msd", *words])
    assert _run() == code
    captured = capsys.readouterr()
    check_output(words, captured.out, captured.err, code, message)


def test_commands_give_up_before_their_timeout_if_every_address_refuses(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"film")
    with ExitStack() as stack:
        for command in ("status", "list --timeout 600", "verify film --timeout 600", "toggle 1", "quit"):
            process = Process([*MSD, *command.split(), *nowhere()], cwd=tmp_path)
            stack.callback(check_no_answer, stack.enter_context(process))


def check_no_answer(process: Process) -> None:
    assert process.wait() == 7
    assert "is msd serve running there?" in process.err.text
    assert len(process.err.lines) == 1


def test_without_servers_a_download_waits_until_its_timeout(tmp_path: Path) -> None:
    with Download(nowhere(), "--timeout", "2", cwd=tmp_path) as client:
        assert client.wait() == 7
    (waiting,) = client.events_of("waiting")
    assert " refuse the connection: is msd serve running there?" in waiting["reason"]
    assert [address["outcome"] for address in waiting["addresses"]] == ["refused"] * 5
    last = client.events[-1]
    assert (last["event"], last["code"]) == ("error", 7)
    assert "gave up after 2 s" in last["message"]


def test_a_port_in_use_is_reported_before_any_process_starts(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"film")
    ports = free_ports()
    for position, user in ((2, "worker 3"), (4, "server 5"), (5, "control")):
        busy = [*ports, ports[4] + 1][position]
        with closing(socket.socket()) as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", busy))
            holder.listen()
            arguments = ["serve", "-f", "film", "-p", *map(str, ports)]
            check_failure(*arguments, code=2, message=f"port {busy} ({user}) is in use", cwd=tmp_path)


def test_a_second_server_on_the_same_ports_is_refused(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(100))
    system.put_to_sleep(1, 2, 3, 4)
    check_failure("serve", "-f", str(source(100)), *system.server_flags, code=2, message="in use", cwd=tmp_path)


def test_an_unknown_file_name_gets_suggestions(serve: Serve, tmp_path: Path, rng: random.Random) -> None:
    for name in ("Star.mp4", "Stars.mp4", "Other.bin"):
        make_file(tmp_path / "shared" / name, 100, rng)
    server_flags = serve(tmp_path / "shared", workers=1).server_flags
    check_failure(
        "download", "star.mp4", *server_flags, code=3, message="did you mean 'Star.mp4' or 'Stars.mp4'?", cwd=tmp_path
    )
    check_failure("download", "zzz", *server_flags, code=3, message="msd list shows the shared files", cwd=tmp_path)
    check_failure("download", *server_flags, code=2, message="3 files are shared: name one of them", cwd=tmp_path)
    check_failure(
        "download", "Star.mp4", "--id", "0" * 64, *server_flags, code=3, message="msd list --json", cwd=tmp_path
    )
    files = json.loads(run_msd("list", "--json", *server_flags).stdout)["files"]
    star, stars = (next(file["id"] for file in files if file["name"] == name) for name in ("Star.mp4", "Stars.mp4"))
    for digits in (stars, stars[:12]):
        check_failure(
            *("download", "Star.mp4", "--id", digits, *server_flags),
            code=3,
            message=f"the id {digits} is that of 'Stars.mp4', not of 'Star.mp4'",
            cwd=tmp_path,
        )
    check_failure("download", "--id", "000000", *server_flags, code=3, message="begins with 000000", cwd=tmp_path)
    # The first digits of an id select the file, too.
    assert run_msd("download", "--id", star[:12].upper(), *server_flags, cwd=tmp_path).returncode == 0
    assert (tmp_path / "Star.mp4").read_bytes() == (tmp_path / "shared" / "Star.mp4").read_bytes()


def test_verify_defaults_to_the_shared_file_with_the_same_name(
    serve: Serve, tmp_path: Path, rng: random.Random
) -> None:
    folder = tmp_path / "shared"
    for name in ("one.bin", "two.bin"):
        make_file(folder / name, 1000, rng)
    system = serve(folder, workers=1)
    intact = run_msd("verify", str(folder / "two.bin"), *system.server_flags)
    assert (intact.returncode, intact.stderr) == (0, "")
    assert "matches two.bin" in intact.stdout
    copy = Path(shutil.copy(folder / "one.bin", tmp_path / "tow.bin"))
    unnamed = run_msd("verify", str(copy), *system.server_flags)
    assert unnamed.returncode == 3
    expected = "msd: no shared file is named 'tow.bin': give the name of a shared file; did you mean 'two.bin'"
    assert unnamed.stderr.startswith(expected)
    # If an explicit NAME is not shared, the error differs from that for a default name.
    check_failure(
        "verify", str(copy), "tow.bin", *system.server_flags, code=3, message="'tow.bin' is not shared", cwd=tmp_path
    )
    # All shared names are UTF-8 but this one is not, so msd has no suggestion.
    odd = tmp_path / os.fsdecode(b"\xff.mp4")
    odd.touch()
    check_failure(
        "verify", str(odd), *system.server_flags, code=2, message="2 files are shared: name one of them", cwd=tmp_path
    )
    ended = run_msd("quit", *system.server_flags)
    assert (ended.returncode, ended.stdout) == (0, "shutting down the broker and 1 worker\n")
    assert system.wait() == 0


def test_a_name_that_is_not_utf_8_is_printed_as_raw_bytes(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(1000), workers=1)
    odd = os.fsdecode(b"\xff.mp4")
    # Most users' locales use strict encoding; the locale of the tests does not.
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    for command in (["download", "-o", odd], ["verify", odd]):
        ended = subprocess.run(
            [*MSD, *command, *system.server_flags], env=strict, cwd=tmp_path, capture_output=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith(b"\xff.mp4")


def test_a_file_that_changes_on_the_servers_ends_the_download_of_one_version_with_code_5(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    path = source(24 * MIB)
    system = serve(path, "--rate", "8MiB", workers=1)
    id = json.loads(run_msd("list", "--json", *system.server_flags).stdout)["files"][0]["id"]
    with system.download("-o", "copy.bin", "--id", id[:8], cwd=tmp_path) as client:
        client.wait_until_verified(0.1)
        os.truncate(path, 1000)
        assert client.wait() == 5
    last = client.events[-1]
    assert (last["event"], last["code"]) == ("error", 5)
    assert "the id names a version that the servers no longer share" in last["message"]
    assert not (tmp_path / "copy.bin").exists()
    assert (tmp_path / ".copy.bin.msd-part").exists()
    assert system.states() == ["awake"]
    assert [worker.restarts for worker in system.status().workers] == [0]


def test_an_interrupted_download_keeps_its_part_file_and_resumes(serve: Serve, source: Source, tmp_path: Path) -> None:
    path = source(24 * MIB)
    system = serve(path, "--rate", "16MiB", workers=1)
    for number, share in ((signal.SIGINT, 0.3), (signal.SIGTERM, 0.6)):
        with system.download("-o", "copy.bin", cwd=tmp_path) as client:
            client.wait_until_verified(share)
            client.signal(number)
            assert client.wait() == 128 + number
        message = client.events[-1]["message"]
        kept = re.fullmatch(
            r"interrupted: (\d+)\.\d MiB of 24\.0 MiB verified; "
            r"progress saved in \.copy\.bin\.msd-part; run the same command to resume",
            message,
        )
        assert kept is not None, message
        assert int(kept[1]) >= int(share * 24)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        done = client.wait_until_done()
    assert done["reused_bytes"] >= 0.6 * 24 * MIB
    assert done["received_bytes"] - done["wasted_bytes"] + done["reused_bytes"] == 24 * MIB


def test_two_downloads_cannot_write_the_same_output(serve: Serve, source: Source, tmp_path: Path) -> None:
    system = serve(source(12 * MIB), "--rate", "8MiB", workers=1)
    with system.download("-o", "copy.bin", cwd=tmp_path) as client:
        client.wait_until_verified(0.01)
        client.signal(signal.SIGSTOP)
        check_failure(
            "download",
            "-o",
            "copy.bin",
            *system.server_flags,
            code=6,
            message="another download is writing to this file",
            cwd=tmp_path,
        )
        client.signal(signal.SIGCONT)
        client.wait_until_done()
        # The refused download has not touched the part file.
        assert not client.events_of("warning")


def test_a_deleted_shared_file_is_refused_and_workers_keep_running(
    serve: Serve, source: Source, tmp_path: Path
) -> None:
    path = source(3 * MIB)
    system = serve(path, workers=1)
    path.unlink()
    # A download with a SHA-256 does not wait for the file to return.
    command = ["download", "-o", "copy.bin", "--sha256", "0" * 64, "--quiet"]
    refused = run_msd(*command, *system.server_flags, cwd=tmp_path)
    # The code is 5 before the servers have rescanned the folder, and 3 afterwards.
    assert refused.returncode in (5, 3), refused.stderr
    assert refused.stderr.count("\n") == 1
    wait_for("all workers awake", lambda: system.states() == ["awake"])
