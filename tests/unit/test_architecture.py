"""The rules of docs/architecture.md that a machine can check: who imports whom, and what stays pure."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROLES = ("broker", "workers", "client")
FOLDERS = (*ROLES, "wire")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.py"))

#: What the folders may import beside the standard library and ``wire``.
THIRD_PARTY = {
    "broker": {"zmq", "msgspec"},
    "workers": {"zmq", "msgspec", "blake3"},
    "client": {"zmq", "msgspec"},
    "wire": {"msgspec"},
}
#: Modules that may import more, and why it is theirs.
ALSO = {
    "wire/codec.py": {"msgpack"},
    "wire/segments.py": {"blake3"},
    "wire/admission.py": {"zmq"},
    "wire/keys.py": {"zmq"},
    "wire/monitor.py": {"zmq"},
    "wire/sockets.py": {"zmq"},
    "wire/flags.py": {"typer"},
    "broker/commands.py": {"typer"},
    "broker/key_commands.py": {"typer"},
    "broker/dialogs.py": {"textual"},
    "broker/terminal.py": {"textual"},
    "client/commands.py": {"typer"},
    "client/live.py": {"rich"},
    "client/painter.py": {"rich"},
    "client/view.py": {"rich"},
    "client/plot.py": {"matplotlib"},
    "broker/metrics.py": {"prometheus_client"},
}
#: The pure cores: they decide, so they know no socket, no clock, no file, no process, no log.
PURE = (
    "broker/supervision.py",
    "broker/console.py",
    "broker/drawing.py",
    "broker/history.py",
    "broker/journal.py",
    "broker/notes.py",
    "broker/sessions.py",
    "broker/stalls.py",
    "broker/toggles.py",
    "client/ledger.py",
    "client/scheduler.py",
    "client/pace.py",
    "client/happenings.py",
    "client/links.py",
    "client/finding.py",
    "client/meter.py",
    "client/patience.py",
    "client/picture.py",
    "client/recording.py",
    "client/summary.py",
    "client/units.py",
    "client/values.py",
    "client/view.py",
    "workers/answer.py",
    "workers/turns.py",
    "workers/sessions.py",
    "workers/watching.py",
    "wire/codec.py",
    "wire/errors.py",
    "wire/log.py",
    "wire/messages.py",
    "wire/names.py",
    "wire/segments.py",
    "wire/states.py",
)
#: What pure cores take from modules that are not: types and values, nothing that does something.
VALUES = {
    "client/events.py": {"Event", "Progress", "Report", "Retried", "Sampled", "Started", "Syncing", "Waiting"}
    | {"WorkerChanged", "WorkerProgress"},
    "wire/config.py": {"LOOPBACK", "Config", "Servers"},
    "wire/endpoints.py": {"Endpoint"},
    "workers/catalogue.py": {"Catalogue", "SharedFile"},
}
IMPURE = {"zmq", "time", "os", "socket", "subprocess", "threading", "logging", "random", "secrets", "pathlib", "signal"}


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_folder_imports_what_it_may(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imported(path)} & {*FOLDERS, "msd", "tests", "bench"}
    assert ours <= {folder, "wire"}
    foreign = {name.split(".")[0] for name in imported(path)} - ours - sys.stdlib_module_names
    assert foreign <= THIRD_PARTY[folder] | ALSO.get(relative(path), set())


@pytest.mark.parametrize("name", PURE)
def test_a_pure_core_knows_no_socket_clock_or_file(name: str) -> None:
    assert not {module.split(".")[0] for module in imported(ROOT / name)} & IMPURE
    calls = [node for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("open", "print")]


@pytest.mark.parametrize("name", PURE)
def test_a_pure_core_gets_none_of_that_from_a_module_of_ours_that_is_not_pure(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in FOLDERS:
            for alias in node.names:
                # ``from folder import module``, or a name of a module.
                path = f"{node.module}.{alias.name}" if "." not in str(node.module) else str(node.module)
                module = path.replace(".", "/") + ".py"
                assert module in PURE or alias.name in VALUES.get(module, set()), f"{alias.name} of {module}"
        elif isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {*FOLDERS}


def test_no_module_has_the_name_of_one_of_pythons() -> None:
    names = {path.stem for path in MODULES} - {"__init__", "__main__"}
    assert not names & sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_says_its_job_in_its_first_lines(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_command_line_starts_with_typer_and_nothing_else() -> None:
    code = "import sys, typer; before = {*sys.modules}; import msd; print(*{*sys.modules} - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    light = {
        "__future__",
        "gc",
        "msd",
        "broker",
        "broker.commands",
        "broker.key_commands",
        "client",
        "client.commands",
        "wire",
        "wire.flags",
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
    from docs.figures import drawn

    page = (ROOT / "docs" / "scheduler.md").read_text(encoding="utf-8")
    assert "stateDiagram" in page
    assert drawn(page) == page, "run make figures"
