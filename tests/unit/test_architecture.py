"""The rules in docs/architecture.md: which rooms import each other, which modules are pure, and where the tests are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("broker", "client", "wire", "workers")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.py"))
#: The modules that need a test module.
TESTED_MODULES = [*(path for path in MODULES if path.name != "__init__.py"), ROOT / "src" / "msd" / "cli.py"]

#: For each room, exactly the rooms of the same folder that it imports. All rooms of ``broker``, ``client`` and
#: ``workers`` may also import ``wire``, but these three folders never import each other.
ROOMS = {
    "broker/cli": "operator start_up status terminal views",
    "broker/start_up": "server terminal",
    "broker/server": "network status supervision terminal tracking",
    "broker/operator": "status views",
    "broker/terminal": "views",
    "broker/views": "status",
    "broker/network": "",
    "broker/status": "supervision",
    "broker/supervision": "",
    "broker/tracking": "network",
    #
    "client/cli": "display events manifest operations plan report storage",
    "client/operations": "events manifest network network_events peers plan report scheduling storage",
    "client/display": "events report",
    "client/manifest": "network network_events plan",
    "client/peers": "network network_events",
    "client/plan": "",
    "client/report": "events",
    "client/network": "events network_events",
    "client/events": "",
    "client/network_events": "",
    "client/scheduling": "network_events",
    "client/storage": "events",
    #
    "workers/__main__": "indexing passing_on serving source",
    "workers/passing_on": "indexing serving source",
    "workers/cli": "serving",
    "workers/serving": "source",
    "workers/indexing": "source",
    "workers/source": "",
    #
    "wire/sharing": "config errors net protocol support",
    "wire/config": "errors net security support",
    "wire/net": "errors protocol security support",
    "wire/security": "errors protocol support",
    "wire/protocol": "errors",
    "wire/support": "",
    "wire/errors": "",
}
#: The maximum number of modules (including ``__init__.py``) that are directly in a folder, outside its rooms.
MAX_LOOSE_MODULES = {"broker": 4, "client": 3, "workers": 3, "wire": 3}

#: Third-party libraries that all modules of a folder may import.
THIRD_PARTY = {
    "broker": {"zmq", "msgspec"},
    "workers": {"zmq", "msgspec", "blake3"},
    "client": {"zmq", "msgspec"},
    "wire": {"msgspec"},
}
#: Additional libraries that individual modules may import.
THIRD_PARTY_OF_MODULE = {
    "wire/protocol/codec.py": {"msgpack"},
    "wire/protocol/segments.py": {"blake3"},
    "wire/support/part_names.py": {"blake3"},
    "wire/security/zap.py": {"zmq"},
    "wire/security/keys.py": {"zmq"},
    "wire/net/accepted_connections.py": {"zmq"},
    "wire/net/monitor.py": {"zmq"},
    "wire/net/poll_loop.py": {"zmq"},
    "wire/net/sockets.py": {"zmq"},
    "wire/net/status_subscriber.py": {"zmq"},
    "wire/config/cli_flags.py": {"typer"},
    "broker/cli/commands.py": {"typer"},
    "broker/cli/key_commands.py": {"typer"},
    "workers/cli/commands.py": {"typer"},
    "workers/source/object_store.py": {"obstore", "blake3"},
    "broker/operator/dialogs.py": {"textual"},
    "broker/operator/console_app.py": {"textual"},
    "broker/operator/filter_line.py": {"textual"},
    "broker/operator/panel.py": {"textual"},
    "broker/operator/terminal_sharing.py": {"textual"},
    "broker/status/metrics.py": {"prometheus_client"},
    "client/cli/commands.py": {"typer"},
    "client/plan/plan.py": {"blake3"},
    "client/display/live_view.py": {"rich"},
    "client/display/terminal_painter.py": {"rich"},
    "client/display/live_layout.py": {"rich"},
    "client/display/worker_table.py": {"rich"},
    "client/report/chart.py": {"matplotlib"},
}
#: The pure modules: they use no socket, clock, file, process or log.
PURE = (
    "broker/operator/colours.py",
    "broker/operator/worker_selection.py",
    "broker/status/client_arrivals.py",
    "broker/status/downloads.py",
    "broker/status/event_log.py",
    "broker/status/history.py",
    "broker/status/requested_selections.py",
    "broker/status/slowness.py",
    "broker/status/steady_rate.py",
    "broker/status/worker_names.py",
    "broker/supervision/until_done.py",
    "wire/sharing/indexer_notes.py",
    "wire/sharing/indexer_restarts.py",
    "broker/supervision/pending_toggles.py",
    "broker/supervision/supervisor.py",
    "broker/supervision/supervisor_events.py",
    "broker/supervision/worker_record.py",
    "broker/terminal/typed_commands.py",
    "broker/tracking/announcer.py",
    "broker/tracking/complaints.py",
    "broker/tracking/tracker.py",
    "broker/views/client_rows.py",
    "broker/views/columns.py",
    "broker/views/event_rows.py",
    "broker/views/file_rows.py",
    "broker/views/headline.py",
    "broker/views/host_rates.py",
    "broker/views/overview.py",
    "broker/views/panel_layout.py",
    "broker/views/panel_text.py",
    "broker/views/rate_graph.py",
    "broker/views/status_table.py",
    "broker/views/worker_rows.py",
    "client/display/failure_lines.py",
    "client/display/files_text.py",
    "client/display/live_layout.py",
    "client/display/peer_totals.py",
    "client/display/time_left.py",
    "client/display/waiting_text.py",
    "client/display/worker_table.py",
    "client/manifest/awaited_workers.py",
    "client/manifest/file_follower.py",
    "client/manifest/hosts_lister.py",
    "client/manifest/id_prefix.py",
    "client/manifest/lister.py",
    "client/manifest/name_suggestions.py",
    "client/manifest/resolver.py",
    "client/manifest/shared_files.py",
    "client/network/connection_policy.py",
    "client/network/peer_selection.py",
    "client/network_events.py",
    "client/network/progress_timeout.py",
    "client/network/reply_check.py",
    "client/network/waiting_reason.py",
    "client/operations/source_error.py",
    "client/plan/page_check.py",
    "client/storage/existing_file.py",
    "client/plan/plan.py",
    "client/plan/planner.py",
    "client/plan/selection.py",
    "client/report/chart_data.py",
    "client/report/event_recorder.py",
    "client/report/json_values.py",
    "client/report/progress_throttle.py",
    "client/report/rate_meter.py",
    "client/report/totals.py",
    "client/operations/unit_parts.py",
    "workers/serving/piece_reads.py",
    "wire/config/store_urls.py",
    "client/scheduling/ranges.py",
    "client/scheduling/rate_limit.py",
    "client/scheduling/refusal_policy.py",
    "client/scheduling/scheduler_events.py",
    "client/scheduling/scheduler.py",
    "client/scheduling/unit_table.py",
    "client/scheduling/worker_pace.py",
    "workers/indexing/rescan_policy.py",
    "workers/serving/answer.py",
    "workers/serving/client_sessions.py",
    "workers/serving/fair_queue.py",
    "workers/serving/worker_life.py",
    "workers/source/listing.py",
    "wire/config/error_flags.py",
    "wire/errors.py",
    "wire/net/contacts.py",
    "wire/net/diagnosis.py",
    "wire/protocol/child_messages.py",
    "wire/protocol/codec.py",
    "wire/protocol/messages.py",
    "wire/protocol/segments.py",
    "wire/protocol/states.py",
    "wire/support/backoff.py",
    "wire/support/core.py",
    "wire/support/log_line.py",
    "wire/support/part_names.py",
    "wire/support/name_patterns.py",
    "wire/support/stall_detector.py",
    "wire/support/presentable_names.py",
    "wire/support/units.py",
    "wire/support/windowed_rate.py",
)
#: The names that pure modules may import from impure modules: types and values, but no functions.
IMPURE_MODULE_VALUES = {
    "client/events.py": {
        "MIN_SPAN_S",
        "Event",
        "FileChanged",
        "FileCounts",
        "FileResult",
        "FilesProgress",
        "FilesReport",
        "FilesStarted",
        "Hashing",
        "OnEvent",
        "Outcome",
        "Progress",
        "Report",
        "Retried",
        "Started",
    }
    | {"Syncing", "Totals", "Waiting", "WorkerChanged", "WorkerProgress", "WorkerReport", "is_peer_name"},
    "wire/config/servers.py": {"Servers"},
    "wire/config/settings.py": {"LOOPBACK", "Config"},
    "wire/net/endpoints.py": {"ANY_HOSTS", "Endpoint"},
    "wire/security/keys.py": {"KEY_SIZE"},
    "workers/source/catalogue.py": {"Catalogue", "SharedFile"},
    "workers/source/source.py": {"Piece", "PieceOrder", "ReadRefused"},
}
IMPURE_LIBRARIES = {
    "zmq",
    "time",
    "os",
    "socket",
    "subprocess",
    "threading",
    "logging",
    "random",
    "secrets",
    "pathlib",
    "signal",
}


@cache
def imported(path: Path) -> set[str]:
    """The full names of all modules that a file imports, including imports inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # The name may be a module (``from room import module``) or an attribute of one.
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names.add(name if is_module(name) else str(node.module))
    return names


@cache
def is_module(name: str) -> bool:
    """True if ``name`` is a module or package of this repository."""
    path = ROOT.joinpath("src", *name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    """The room of a module: ``client/network`` for ``client/network/pool.py``, ``broker/server`` for
    ``broker/server.py``.
    """
    folder, inner = path.relative_to(ROOT).parts[:2]
    return f"{folder}/{inner.removesuffix('.py')}"


def own_imports(path: Path) -> set[str]:
    """The modules of this repository that a file imports."""
    return {name for name in imported(path) if name.split(".")[0] in {"msd", "tests", "bench", "docs", *FOLDERS}}


def test_every_import_of_this_repository_begins_with_msd() -> None:
    for path in MODULES:
        assert {name.split(".")[0] for name in own_imports(path)} <= {"msd"}, relative(path)


@pytest.mark.parametrize("folder", ["tests", "bench", "docs"])
def test_no_script_imports_a_module_of_the_product_under_another_name(folder: str) -> None:
    """In the checkout, ``import client`` works too, but would load every module a second time."""
    for path in (ROOT / folder).glob("**/*.py"):
        assert not {name.split(".")[0] for name in own_imports(path)} & {*FOLDERS}, relative(path)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_exactly_the_rooms_in_the_table(name: str) -> None:
    folder = name.split("/")[0]
    imported_rooms = {
        "/".join(module.split(".")[1:3])
        for path in MODULES
        if path.name != "__init__.py" and room(path) == name
        for module in own_imports(path)
    }
    assert {other for other in imported_rooms if not other.startswith((f"{folder}/", "wire"))} == set()
    assert {other.split("/")[1] for other in imported_rooms - {name} if other.startswith(f"{folder}/")} == {
        *ROOMS[name].split()
    }


def test_every_module_is_in_a_room_of_the_table() -> None:
    assert {room(path) for path in MODULES if path.parent.name not in FOLDERS or path.name != "__init__.py"} == {*ROOMS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_few_modules_are_outside_rooms(folder: str) -> None:
    assert len([path for path in MODULES if path.parent == ROOT / folder]) <= MAX_LOOSE_MODULES[folder]


def test_a_module_imports_only_allowed_libraries() -> None:
    for path in MODULES:
        folder = path.relative_to(ROOT).parts[0]
        third_party = {name.split(".")[0] for name in imported(path)} - {"msd"} - sys.stdlib_module_names
        assert third_party <= THIRD_PARTY[folder] | THIRD_PARTY_OF_MODULE.get(relative(path), set()), relative(path)


def test_a_pure_module_uses_no_socket_clock_or_file() -> None:
    for name in PURE:
        assert not {module.split(".")[0] for module in imported(ROOT / name)} & IMPURE_LIBRARIES, name
        calls = [node for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.Call)]
        called = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        assert not called & {"open", "print"}, name


def test_a_pure_module_imports_only_values_from_impure_modules() -> None:
    nodes = [(name, node) for name in PURE for node in ast.walk(ast.parse((ROOT / name).read_text()))]
    for name, node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("msd."):
            for alias in node.names:
                path = f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else str(node.module)
                module = path.removeprefix("msd.").replace(".", "/") + ".py"
                assert module in PURE or alias.name in IMPURE_MODULE_VALUES.get(module, set()), (
                    f"{name} imports {alias.name} from {module}"
                )
        elif isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.split(".")[0] == "msd"], name


def test_no_module_has_the_name_of_a_standard_library_module() -> None:
    names = {path.stem for path in MODULES} - {"__init__", "__main__"}
    assert not names & sys.stdlib_module_names


def unit_test_of(path: Path) -> Path:
    """The path of a module's test module: ``tests/unit/broker/test_server.py`` for ``broker/server.py``."""
    folder = path.relative_to(ROOT).parent
    mirrored = folder.relative_to("src") if folder.parts[0] == "src" else folder
    return ROOT / "tests" / "unit" / mirrored / f"test_{path.stem.strip('_')}.py"


def test_every_module_has_its_test_module() -> None:
    assert [relative(unit_test_of(path)) for path in TESTED_MODULES if not unit_test_of(path).is_file()] == []


def test_every_module_has_a_docstring() -> None:
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), relative(path)


def test_tests_that_run_alone_are_where_make_test_looks_for_them() -> None:
    folders = {
        path.parent for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark." + "alone" in path.read_text()
    }
    (searched,) = re.findall(r'-m "alone and not soak" (.*) \$\(ARGS\)', (ROOT / "Makefile").read_text())
    assert folders == {ROOT / folder for folder in searched.split()}


def test_the_command_line_imports_only_typer_and_the_command_modules() -> None:
    code = "import sys, typer; before = {*sys.modules}; import msd.cli; print(*{*sys.modules} - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    expected = {
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
        "msd.client.cli.commands",
        "msd.wire",
        "msd.wire.config",
        "msd.wire.config.cli_flags",
        "msd.workers",
        "msd.workers.cli",
        "msd.workers.cli.commands",
    }
    assert set(loaded) == expected


def test_the_links_in_the_documentation_are_valid() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path) if path else page
            assert linked.exists(), (page.name, target)
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
                assert anchor in anchors, (page.name, target)


def test_the_diagrams_in_the_documentation_match_the_code() -> None:
    from docs.make_figures import FIGURE, TABLES, with_figures

    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")]
    assert sorted(name for page in pages for name in FIGURE.findall(page)) == sorted(TABLES)
    for page in pages:
        assert with_figures(page) == page, "run make figures"
