"""Generates the figures in the documentation from the code: ``python docs/make_figures.py`` (``make figures``).

Each figure is enclosed by two marker comments in its page. A test checks that the pages are up to date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msd.broker.supervision import supervisor_events
from msd.client.manifest import file_follower, resolver
from msd.client.network import connection_policy
from msd.client.scheduling import scheduler_events
from msd.workers.serving import worker_life

DOCS = Path(__file__).parent
#: The transition tables by figure name; each table maps a change of state to its causes.
TABLES: dict[str, Mapping[Any, tuple[type | str, ...]]] = {
    "units": scheduler_events.TRANSITIONS,
    "manifest": resolver.TRANSITIONS,
    "follow": file_follower.TRANSITIONS,
    "connections": connection_policy.TRANSITIONS,
    "workers": supervisor_events.TRANSITIONS,
    "port": worker_life.TRANSITIONS,
}
#: Matches a figure in a page; the group captures its name.
FIGURE = re.compile(r"<!-- figure: (\w+) -->.*?<!-- end of figure -->", re.DOTALL)


def figure(name: str) -> str:
    """Returns the figure ``name`` with its markers: a Mermaid diagram of the transitions in its table."""
    lines = [f"<!-- figure: {name} -->", "```mermaid", "stateDiagram-v2"]
    for (start, end), causes in TABLES[name].items():
        names = "\\n".join(cause if isinstance(cause, str) else cause.__name__ for cause in causes)
        lines.append(f"    {start.name} --> {end.name}: {names}")
    return "\n".join([*lines, "```", "<!-- end of figure -->"])


def with_figures(page: str) -> str:
    """Returns the text of a page with its figures regenerated."""
    return FIGURE.sub(lambda match: figure(match[1]), page)


if __name__ == "__main__":
    for path in DOCS.glob("*.md"):
        path.write_text(with_figures(path.read_text(encoding="utf-8")), encoding="utf-8")
