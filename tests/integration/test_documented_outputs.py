"""The commands print what the documentation shows, except for figures that vary between runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import ndiff
from pathlib import Path

from docs.make_outputs import PAGE, PORTS, page
from tests.processes import free_ports, run_msd

README = Path(__file__).parents[2] / "README.md"
#: Patterns of text that varies between runs of the commands in docs/outputs.md, and their replacements.
VARYING = (
    (r"\n  (?=\S)", " "),  # continued lines
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:[\d.]+\+00:00)?", "DATE"),
    (r"(?<=key is |laptop |server )( *)\b[0-9a-f]{64}\b", "KEY"),
    # A download: its speed and the bytes per worker. It prints more than one block of metric lines on a slow machine,
    # and a line about retries on a busy one.
    (r"^(Server\d|Total): [\d.]+(?:/[\d.]+)?, download speed: [\d.]+kb/s", r"\1: FIGURES"),
    (r" in [\d.]+ s, [\d.]+ [KMG]iB/s \(worker [^)]*\)(?: .*median .*)?", " DURATION AND RATES"),
    (r"\([\d.]+ s\)", "(SECONDS)"),
    # Of several files, one progress on a fast machine, more on a slow one.
    (r"^[\d,]+ of [\d,]+\+? files, .*\n(?:In flight: .*\n)?", "FILES\n"),
    (r" in [\d.]+ s, [\d.]+ [KMG]iB/s \((?=[\d,]+ fetched)", " in DURATION AND RATE ("),
    (r"(?<= kept\): copies) .*median .*", ""),
    # The status: times, bytes sent, rates, pids, and the order of simultaneous events.
    (r"^([●○] .*?) +\d+:\d\d(?::\d\d)?  ( +\d+) +\d+ .*", r"\1 UPTIME \2 CLIENTS SENT"),
    (r" · [^·]+ · (?=\d+ files$)", " · RATE · "),
    (r"\b\d+ clients? served", "CLIENTS"),
    (r"process \d+", "process NUMBER"),
    (r"[\d,]+ bytes sent", "SENT"),
    (r"^\d\d:\d\d:\d\d   (?:[\d,]+ )?clients? (.* )?(connected|disconnected): .*\n", ""),
    # The oldest event is not shown any more after events of clients.
    (r"^\d\d:\d\d:\d\d   sharing \d files\n", ""),
    (r"^\d\d:\d\d:\d\d   (worker )\d( is alive)", r"TIME \1N\2"),
    (r"^\d\d:\d\d:\d\d   (server 5 reports )\d", r"TIME \1N"),
    (r"^\d\d:\d\d:\d\d   ", "TIME "),
)
#: The test runs a smaller demo than the README: all figures differ, and some lines may be missing.
DEMO_VARYING = (
    (r"\n  (?=\S)", " "),  # continued lines
    (r"(?<![\w.])\d+(?:[.,:T+-]\d+)*|(?<=Server)\d", "0"),
    (r"\b0 ?(?:B|[kKMGT]i?B|kb)\b", "AMOUNT"),
    (r"(?:worker 0 AMOUNT(?:, )?)+", "WORKERS"),
    (r" +", " "),
)


def normalized_lines(text: str, varying: Sequence[tuple[str, str]]) -> list[str]:
    """Returns the distinct lines of an output, with the varying parts replaced."""
    for pattern, replacement in varying:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return [*dict.fromkeys(line.rstrip() for line in text.splitlines())]


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        yield title, normalized_lines(body, VARYING)


def test_the_page_of_outputs_matches_the_commands(runtime_folder: Path, tmp_path: Path) -> None:
    ports = free_ports()
    printed = page(ports, tmp_path)
    for port, documented in zip(ports, PORTS, strict=True):
        printed = re.sub(rf"\b{port}\b", str(documented), printed)
    expected, found = dict(sections(PAGE.read_text(encoding="utf-8"))), dict(sections(printed))
    differences = [
        f"{title}: {line}"
        for title in expected | found
        for line in ndiff(expected.get(title, []), found.get(title, []))
        if line[0] in "-+"
    ]
    assert not differences, "\n".join(["run make outputs", *differences])


def test_the_demo_prints_the_lines_shown_in_the_readme(runtime_folder: Path) -> None:
    text = README.read_text(encoding="utf-8")
    shown = text.split("What the demo prints:\n\n```\n")[1].split("```")[0]
    ended = run_msd("demo", "--size", "32MiB", "--seconds", "3")
    assert ended.returncode == 0, ended.stderr
    printed = normalized_lines(ended.stdout + "\n" + ended.stderr, DEMO_VARYING)
    missing = [line for line in normalized_lines(shown, DEMO_VARYING) if line != "…" and line not in printed]
    assert not missing, printed


def test_normalized_lines_differ_in_words_and_sizes_but_not_in_times() -> None:
    def same(first: str, second: str) -> bool:
        return normalized_lines(first, VARYING) == normalized_lines(second, VARYING)

    assert same(
        "copy: 4.0 MiB verified in 0.30 s, 12.1 MiB/s (worker 1 3.0 MiB)",
        "copy: 4.0 MiB verified in 0.03 s, 2.1 GiB/s (worker 1 3.0 KiB, worker 4 1 B)",
    )
    assert not same("copy: 4.0 MiB in 4 segments", "copy: 4.0 MiB in 16 segments")
    assert not same("worker 2: asleep", "worker 2: awake")
    assert not same("segment 4 differs", "segment 5 differs")
    assert same(f"laptop {'ab' * 32}", f"laptop {'01' * 32}")
    assert not same(f'"id": "{"ab" * 32}"', f'"id": "{"01" * 32}"')
