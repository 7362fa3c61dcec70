"""``msd verify``: prints how a local file or folder differs from the shared one.

``client/operations/verify.py`` and ``verify_folder.py`` compare.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from shlex import quote

from msd.client.cli.link_argument import find_servers, link_refusals
from msd.client.operations.verify import Comparison, mismatch_lines, verify, verify_sha256
from msd.client.operations.verify_folder import Difference, FolderComparison, verify_folder
from msd.wire.config.cli_flags import ServerFlags
from msd.wire.config.servers import Servers
from msd.wire.errors import NotFoundError, SourceError
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count

#: The maximum number of differing files of a folder that are printed.
MAX_DIFFERENCES = 20


def run(flags: ServerFlags, path: str, name: str | None, *, sha256: str | None, timeout: float, as_json: bool) -> None:
    """Compares a file or folder and prints the result. Raises ``MsdError``: ``SourceError`` if it differs."""
    if sha256 is not None:
        digits = verify_sha256(Path(path), sha256)
        if not as_json:
            print(f"{path} has the SHA-256 {digits}")
        elif name is None:
            print(json.dumps({"path": path, "sha256": digits, "matches": True}))
        if name is None:
            return
    given = [name] if name is not None else []
    servers, names = find_servers(given, flags)
    with link_refusals(given):
        _compare(servers, path, names[0] if names else None, timeout, as_json=as_json)


def _compare(servers: Servers, path: str, name: str | None, timeout: float, *, as_json: bool) -> None:
    """Compares a file or folder with what is shared as ``name``, and prints the result. Raises ``MsdError``."""
    if Path(path).is_dir():
        _report_folder(verify_folder(servers, Path(path), name, timeout), as_json=as_json)
        return
    try:
        comparison = verify(servers, Path(path), name, timeout)
    except NotFoundError as error:
        from msd.client.manifest.name_suggestions import with_suggestion

        raise with_suggestion(error, name) from None
    _report_file(path, comparison, as_json=as_json)


def _report_file(path: str, comparison: Comparison, *, as_json: bool) -> None:
    name, differing = comparison.name, comparison.differing
    if as_json:
        sizes = {"size": comparison.size, "local_size": comparison.local_size, "segments": comparison.segments}
        _print(
            [json.dumps({"path": path, "name": name, "matches": comparison.matches, **sizes, "differing": differing})]
        )
    if comparison.matches:
        if not as_json:
            print(f"{path} matches {name} ({format_count(comparison.segments, 'segment')} verified)")
        return
    if not comparison.is_copy:
        raise SourceError(f"{path} is another file than the shared {name}: most of the data differs")
    if not as_json:
        _print(mismatch_lines(comparison))
    repair = f"msd download {quote(name)} --update -o {quote(path)}"
    raise SourceError(f"{path} differs from the shared {name}: repair it with {repair}")


def _report_folder(comparison: FolderComparison, *, as_json: bool) -> None:
    folder, name = comparison.folder, presentable(comparison.name) or "what is shared"
    numbers = Counter(comparison.differences.values())
    if as_json:
        paths = {kind: [path for path, found in comparison.differences.items() if found is kind] for kind in Difference}
        counts = {"files": comparison.files, "matching": comparison.matching}
        values = {"path": str(folder), "name": comparison.name, "matches": comparison.matches, **counts}
        _print([json.dumps({**values, **{kind.value: paths[kind] for kind in Difference}})])
    else:
        _print(_difference_lines(comparison))
    details = [_count_text(numbers[kind], kind) for kind in Difference if numbers[kind]]
    if not comparison.matches:
        summary = f"{comparison.matching:,} of {format_count(comparison.files, 'file')} match, {', '.join(details)}"
        raise SourceError(f"{folder} differs from {name}: {summary}{_repair(comparison)}")
    if not as_json:
        verified = [f"{format_count(comparison.files, 'file')} verified", *details]
        print(f"{folder} matches {name} ({', '.join(verified)})")


def _count_text(count: int, kind: Difference) -> str:
    return f"{count:,} {'differ' if kind is Difference.DIFFERS and count > 1 else kind.value}"


def _difference_lines(comparison: FolderComparison) -> Iterable[str]:
    """Yields a line for each difference, but only for the first ones."""
    for path, difference in islice(comparison.differences.items(), MAX_DIFFERENCES):
        yield f"{difference.value:<10}  {presentable(path)}"
    if (more := len(comparison.differences) - MAX_DIFFERENCES) > 0:
        yield f"{more:,} more"


def _repair(comparison: FolderComparison) -> str:
    """Returns the command that repairs the folder, if it is where a download puts it, or the one that was meant."""
    name, folder = comparison.name, comparison.folder
    if name and not comparison.matching and (folder / name).is_dir():
        return f": did you mean msd verify {quote(str(folder / name))} {quote(name)}?"
    parts = name.split("/")[:-1]
    if [*folder.parts[len(folder.parts) - len(parts) :]] != parts:
        return ""
    output = Path(*folder.parts[: len(folder.parts) - len(parts)])
    return f": repair it with msd download {quote(name or '.')} --update -o {quote(str(output))}"


def _print(lines: Iterable[str]) -> None:
    # If the reader closes the pipe early, the exit code still reports the difference.
    with contextlib.suppress(OSError):
        for line in lines:
            print(line)
