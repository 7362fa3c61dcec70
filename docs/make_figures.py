"""Generates the figures of the documentation from the code: ``python docs/make_figures.py`` (``make figures``).

Each figure stands between two markers in its page. A test checks that the pages are up to date.
"""

from __future__ import annotations

import re
from pathlib import Path

from msd.client.scheduling.scheduler_events import TRANSITIONS

DOCS = Path(__file__).parent
BEGIN, END = "<!-- figure: segments -->", "<!-- end of figure -->"


def segments() -> str:
    """Returns the states of a segment as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for (start, end), causes in TRANSITIONS.items():
        names = "\\n".join(cause.__name__ for cause in causes)
        lines.append(f"    {start.name} --> {end.name}: {names}")
    return "\n".join([*lines, "```"])


def with_figure(page: str) -> str:
    """Returns the text of a page with its figure regenerated."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{segments()}\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    path = DOCS / "scheduler.md"
    path.write_text(with_figure(path.read_text(encoding="utf-8")), encoding="utf-8")
