"""What the documentation shows of the commands is what they print, but for figures that differ from run to run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from docs.outputs import PAGE, PORTS, page
from tests.system import free_ports, run_msd

README = Path(__file__).parents[2] / "README.md"
#: What differs from run to run of the commands on the page, and what it is written as.
VARIES = (
    (r"\n  (?=\S)", " "),  # continued lines
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:[\d.]+\+00:00)?", "DATE"),
    (r"(?<=key is |laptop |server )( *)\b[0-9a-f]{64}\b", "KEY"),
    # Of a download: how fast it was, and from whom. A slow machine prints more than one block, a busy one that it
    # asked twice.
    (r"^(Server\d|Total): [\d.]+(?:/[\d.]+)?, download speed: [\d.]+kb/s", r"\1: SO MUCH"),
    (r" in [\d.]+ s, [\d.]+ [KMG]iB/s \(worker [^)]*\)(?: .*median .*)?", " SO FAST, FROM THEM"),
    (r"\([\d.]+ s\)", "(SECONDS)"),
    # Of the status: times, what was sent and how fast, processes, who came first.
    (r"^( [●○] .*) \d:\d\d:\d\d  ( +\d+ +\d+) .*", r"\1 UPTIME \2 SENT"),
    (r" · [^·]+ · (?=2 files$)", " · RATE · "),
    (r"process \d+", "process NUMBER"),
    (r"[\d,]+ bytes sent", "SENT"),
    (r"^\d\d:\d\d:\d\d   .* clients? (came|left): .*\n", ""),
    (r"^\d\d:\d\d:\d\d   (worker )\d( is alive)", r"TIME \1N\2"),
    (r"^\d\d:\d\d:\d\d   (server 5 says: )\d", r"TIME \1N"),
    (r"^\d\d:\d\d:\d\d   ", "TIME "),
)
#: The demo is run with less: all figures are others, and some lines may be missing.
LOOSE = (
    (r"\n  (?=\S)", " "),  # continued lines
    (r"(?<![\w.])\d+(?:[.,:T+-]\d+)*|(?<=Server)\d", "0"),
    (r"\b0 ?(?:B|[kKMGT]i?B|kb)\b", "AMOUNT"),
    (r"(?:worker 0 AMOUNT(?:, )?)+", "WORKERS"),
    (r" +", " "),
)


def shape(text: str, loose: Sequence[tuple[str, str]]) -> list[str]:
    """The lines of an output without what differs from run to run; each of them once."""
    for pattern, instead in loose:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return [*dict.fromkeys(line.rstrip() for line in text.splitlines())]


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        yield title, shape(body, VARIES)


def test_the_page_of_outputs_shows_what_commands_print(runtime_folder: Path, tmp_path: Path) -> None:
    ports = free_ports()
    printed = page(ports, tmp_path)
    for ours, documented in zip(ports, PORTS, strict=True):
        printed = re.sub(rf"\b{ours}\b", str(documented), printed)
    assert dict(sections(PAGE.read_text(encoding="utf-8"))) == dict(sections(printed)), "run make outputs"


@pytest.mark.alone
def test_the_readme_shows_what_the_demo_prints(runtime_folder: Path) -> None:
    text = README.read_text(encoding="utf-8")
    shown = text.split("What the demo prints:\n\n```\n")[1].split("```")[0]
    ended = run_msd("demo", "--size", "48MiB", "--seconds", "5")
    assert ended.returncode == 0, ended.stderr
    real = shape(ended.stdout + "\n" + ended.stderr, LOOSE)
    missing = [line for line in shape(shown, LOOSE) if line != "…" and line not in real]
    assert not missing, real


def test_shapes_differ_where_words_and_sizes_do_and_not_where_times_do() -> None:
    def same(one: str, other: str) -> bool:
        return shape(one, VARIES) == shape(other, VARIES)

    assert same(
        "copy: 4.0 MiB verified in 0.30 s, 12.1 MiB/s (worker 1 3.0 MiB)",
        "copy: 4.0 MiB verified in 0.03 s, 2.1 GiB/s (worker 1 3.0 KiB, worker 4 1 B)",
    )
    assert not same("copy: 4.0 MiB in 4 segments", "copy: 4.0 MiB in 16 segments")
    assert not same("worker 2: asleep", "worker 2: awake")
    assert not same("segment 4 differs", "segment 5 differs")
    assert same(f"laptop {'ab' * 32}", f"laptop {'01' * 32}")
    assert not same(f'"id": "{"ab" * 32}"', f'"id": "{"01" * 32}"')
