"""What the documentation shows of the commands is what they print, but for figures that differ from run to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.outputs import PAGE, page
from tests.system import free_ports, run_msd

README = Path(__file__).parents[2] / "README.md"
#: What may be there or not, and what it is written as in its place.
LOOSE = (
    (r"^  .*median .*\n", ""),
    (r"^.* client(s)? (came|left): .*\n", ""),
    (r"\n  (?=\S)", " "),  # continued lines
    (r"[▁▂▃▄▅▆▇█]", ""),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"(?<![\w.])\d+(?:[.,:T+-]\d+)*|(?<=Server)\d", "0"),
    (r"0d 0h", "0"),
    (r"\b0 ?(?:B|[kKMGT]i?B|kb)\b", "AMOUNT"),
    (r"(?: (?:AMOUNT/s|-)) +", " RATE "),
    (r"(?:worker 0 AMOUNT(?:, )?)+", "WORKERS"),
    (r" +", " "),
)


def shape(text: str) -> list[str]:
    """The lines of an output without what differs from run to run; each of them once."""
    for pattern, instead in LOOSE:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return [*dict.fromkeys(line.strip() for line in text.splitlines())]


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        yield title, shape(body)


def test_the_page_of_outputs_shows_what_commands_print(runtime_folder: Path, tmp_path: Path) -> None:
    documented, real = dict(sections(PAGE.read_text(encoding="utf-8"))), dict(sections(page(free_ports(), tmp_path)))
    assert documented == real, "run make outputs"


@pytest.mark.alone
def test_the_readme_shows_what_the_demo_prints(runtime_folder: Path) -> None:
    text = README.read_text(encoding="utf-8")
    shown = text.split("What the demo prints:\n\n```\n")[1].split("```")[0]
    ended = run_msd("demo", "--size", "48MiB", "--seconds", "5")
    assert ended.returncode == 0, ended.stderr
    real = shape(ended.stdout + "\n" + ended.stderr)
    missing = [line for line in shape(shown) if line != "…" and line not in real]
    assert not missing, real


def test_shapes_differ_where_words_do_and_not_where_figures_do() -> None:
    assert shape("copy: 4.0 MiB verified in 0.30 s, 12.1 MiB/s (worker 1 3.0 MiB)") == shape(
        "copy: 44.1 MiB verified in 0.03 s, 2.1 GiB/s (worker 1 3.0 KiB, worker 4 1 B)"
    )
    assert shape("worker 2: asleep") != shape("worker 2: awake")
    assert shape(f"laptop {'ab' * 32}") == shape(f"laptop {'01' * 32}")
