"""The rules of docs/architecture.md that a machine can check: which room imports which, and what stays pure."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("broker", "client", "wire", "workers")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.py"))

#: Which room of a folder uses which other rooms of that folder: these, and no others. All of ``broker``, ``client`` and
#: ``workers`` may also use ``wire``; none of the three uses another of the three.
ROOMS = {
    "broker/cli": "operator server terminal",
    "broker/server": "network status supervision terminal",
    "broker/operator": "status views",
    "broker/terminal": "views",
    "broker/views": "status",
    "broker/network": "",
    "broker/status": "network supervision",
    "broker/supervision": "",
    #
    "client/cli": "display operations report",
    "client/operations": "events manifest network report scheduling storage",
    "client/display": "events report",
    "client/manifest": "events network",
    "client/report": "events",
    "client/network": "events",
    "client/events": "",
    "client/scheduling": "",
    "client/storage": "",
    #
    "workers/__main__": "indexing serving",
    "workers/serving": "source",
    "workers/indexing": "source",
    "workers/source": "",
    #
    "wire/config": "errors net security",
    "wire/net": "errors protocol security",
    "wire/security": "errors",
    "wire/protocol": "errors",
    "wire/support": "",
    "wire/errors": "",
}
#: The most modules that lie directly in a folder, beside its rooms.
LOOSE_MODULES = {"broker": 4, "client": 4, "workers": 3, "wire": 3}

#: What the folders may import besides the standard library and ``msd.wire``.
THIRD_PARTY = {
    "broker": {"zmq", "msgspec"},
    "workers": {"zmq", "msgspec", "blake3"},
    "client": {"zmq", "msgspec"},
    "wire": {"msgspec"},
}
#: Modules that may import more.
ALSO = {
    "wire/protocol/codec.py": {"msgpack"},
    "wire/protocol/segments.py": {"blake3"},
    "wire/security/zap.py": {"zmq"},
    "wire/security/keys.py": {"zmq"},
    "wire/net/monitor.py": {"zmq"},
    "wire/net/sockets.py": {"zmq"},
    "wire/config/cli_flags.py": {"typer"},
    "broker/cli/commands.py": {"typer"},
    "broker/cli/key_commands.py": {"typer"},
    "broker/operator/dialogs.py": {"textual"},
    "broker/operator/console_app.py": {"textual"},
    "broker/status/metrics.py": {"prometheus_client"},
    "client/cli.py": {"typer"},
    "client/display/live_view.py": {"rich"},
    "client/display/terminal_painter.py": {"rich"},
    "client/display/live_layout.py": {"rich"},
    "client/report/chart.py": {"matplotlib"},
}
#: The pure cores: they decide, so they know no socket, clock, file, process or log.
PURE = (
    "broker/status/event_log.py",
    "broker/status/history.py",
    "broker/supervision/until_done.py",
    "broker/supervision/indexer_notes.py",
    "broker/supervision/pending_toggles.py",
    "broker/supervision/supervisor.py",
    "broker/views/plain.py",
    "broker/views/table.py",
    "client/display/live_layout.py",
    "client/display/rate_meter.py",
    "client/manifest/resolver.py",
    "client/network/connection_policy.py",
    "client/network/events.py",
    "client/network/progress_timeout.py",
    "client/report/chart_data.py",
    "client/report/event_log.py",
    "client/report/json_values.py",
    "client/report/totals.py",
    "client/scheduling/events.py",
    "client/scheduling/scheduler.py",
    "client/scheduling/segment_table.py",
    "client/scheduling/worker_pace.py",
    "workers/indexing/rescan_policy.py",
    "workers/serving/answer.py",
    "workers/serving/client_sessions.py",
    "workers/serving/fair_queue.py",
    "wire/errors.py",
    "wire/protocol/child_messages.py",
    "wire/protocol/codec.py",
    "wire/protocol/messages.py",
    "wire/protocol/segments.py",
    "wire/protocol/states.py",
    "wire/support/log_line.py",
    "wire/support/stall_detector.py",
    "wire/support/text.py",
    "wire/support/time_passed.py",
    "wire/support/units.py",
)
#: What pure cores take from modules that are not pure: types and values, no functions.
VALUES = {
    "client/events.py": {"Event", "Progress", "Report", "Retried", "Sampled", "Started", "Syncing", "Waiting"}
    | {"WorkerChanged", "WorkerProgress"},
    "wire/config/settings.py": {"LOOPBACK", "Config", "Servers"},
    "wire/net/endpoints.py": {"Endpoint"},
    "workers/source/catalogue.py": {"Catalogue", "SharedFile"},
}
IMPURE = {"zmq", "time", "os", "socket", "subprocess", "threading", "logging", "random", "secrets", "pathlib", "signal"}


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # ``from room import module``, or a name of a module.
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if is_module(name) else str(node.module)


def is_module(name: str) -> bool:
    """True if ``name`` is a module or package of ours."""
    path = ROOT.joinpath("src", *name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    """``client/network/pool.py`` is in ``client/network``; ``client/cli.py`` is a room of its own."""
    folder, inner = path.relative_to(ROOT).parts[:2]
    return f"{folder}/{inner.removesuffix('.py')}"


def ours(path: Path) -> set[str]:
    """The modules of ours that a file imports."""
    return {name for name in imported(path) if name.split(".")[0] in {"msd", "tests", "bench", "docs", *FOLDERS}}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_import_of_ours_begins_with_msd(path: Path) -> None:
    assert {name.split(".")[0] for name in ours(path)} <= {"msd"}


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_uses_the_rooms_it_is_said_to_use(name: str) -> None:
    folder = name.split("/")[0]
    used = {
        "/".join(module.split(".")[1:3])
        for path in MODULES
        if path.name != "__init__.py" and room(path) == name
        for module in ours(path)
    }
    assert {other for other in used if not other.startswith((f"{folder}/", "wire"))} == set()
    assert {other.split("/")[1] for other in used - {name} if other.startswith(f"{folder}/")} == {*ROOMS[name].split()}


def test_every_module_is_in_a_room() -> None:
    assert {room(path) for path in MODULES if path.parent.name not in FOLDERS or path.name != "__init__.py"} == {*ROOMS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_few_modules_lie_directly_in_a_folder(folder: str) -> None:
    assert len([path for path in MODULES if path.parent == ROOT / folder]) <= LOOSE_MODULES[folder]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_folder_imports_the_libraries_it_may(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    foreign = {name.split(".")[0] for name in imported(path)} - {"msd"} - sys.stdlib_module_names
    assert foreign <= THIRD_PARTY[folder] | ALSO.get(relative(path), set())


@pytest.mark.parametrize("name", PURE)
def test_a_pure_core_knows_no_socket_clock_or_file(name: str) -> None:
    assert not {module.split(".")[0] for module in imported(ROOT / name)} & IMPURE
    calls = [node for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("open", "print")]


@pytest.mark.parametrize("name", PURE)
def test_a_pure_core_uses_only_values_of_modules_that_are_not_pure(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("msd."):
            for alias in node.names:
                path = f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else str(node.module)
                module = path.removeprefix("msd.").replace(".", "/") + ".py"
                assert module in PURE or alias.name in VALUES.get(module, set()), f"{alias.name} of {module}"
        elif isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.split(".")[0] == "msd"]


def test_no_module_has_the_name_of_one_of_pythons() -> None:
    names = {path.stem for path in MODULES} - {"__init__", "__main__"}
    assert not names & sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_says_its_job_in_its_first_lines(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_command_line_starts_with_typer_and_nothing_else() -> None:
    code = "import sys, typer; before = {*sys.modules}; import msd.cli; print(*{*sys.modules} - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    light = {
        "__future__",
        "gc",
        "msd",
        "msd.cli",
        "msd.broker",
        "msd.broker.cli",
        "msd.broker.cli.commands",
        "msd.broker.cli.key_commands",
        "msd.client",
        "msd.client.cli",
        "msd.wire",
        "msd.wire.config",
        "msd.wire.config.cli_flags",
    }
    assert set(loaded) == light


def test_the_contents_and_links_of_the_documentation_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            where = (page.parent / path) if path else page
            assert where.exists(), (page.name, target)
            if anchor:
                heads = re.findall(r"^#+ (.+)$", where.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads], target


def test_the_figures_of_the_documentation_are_those_of_the_code() -> None:
    from docs.figures import with_figure

    page = (ROOT / "docs" / "scheduler.md").read_text(encoding="utf-8")
    assert "stateDiagram" in page
    assert with_figure(page) == page, "run make figures"
