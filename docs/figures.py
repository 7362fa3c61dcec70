"""Draws the figures of the documentation from the code: ``python docs/figures.py`` (``make figures``).

Each stands between two markers in its page; a test asserts that the pages are as this would write them.
"""

from __future__ import annotations

import re
from pathlib import Path

from msd.client.scheduling.events import TRANSITIONS

DOCS = Path(__file__).parent
BEGIN, END = "<!-- figure: segments -->", "<!-- end of figure -->"


def segments() -> str:
    """The states of a segment, as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for (start, end), causes in TRANSITIONS.items():
        names = "\\n".join(cause.__name__ for cause in causes)
        lines.append(f"    {start.name} --> {end.name}: {names}")
    return "\n".join([*lines, "```"])


def drawn(page: str) -> str:
    """The text of a page with its figure as it should be."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{segments()}\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    path = DOCS / "scheduler.md"
    path.write_text(drawn(path.read_text(encoding="utf-8")), encoding="utf-8")
