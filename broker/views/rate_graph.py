"""The console's graph of the rate of all workers together. Pure.

Draws bars of text; ``broker/status/event_log.py`` takes the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from msd.broker.views.panel_text import Line, PanelText, Tone, note
from msd.wire.protocol.messages import TOTAL_RATE_S
from msd.wire.support.units import format_duration, format_rate

BARS = " ▁▂▃▄▅▆▇█"
#: Number of rates that the graph shows: five minutes.
SHOWN = 300 // TOTAL_RATE_S
#: From this height on, the last line has the times.
AXIS_HEIGHT = 4


def rate_panel(rates: Sequence[float], now_rate: float, width: int, height: int) -> PanelText:
    """Returns the graph of ``rates`` (bytes a second, newest last), which fills ``width`` columns and ``height`` lines.
    ``now_rate`` is the present rate.
    """
    name, most = f"Rate: {format_rate(now_rate)}", max([now_rate, *rates])
    if most < 0.5:
        return note([name], "nothing was sent in the last 5 minutes", width)
    titles = [
        f"{name}, at most {format_rate(most)} in the last 5 minutes",
        f"{name}, at most {format_rate(most)}",
        name,
    ]
    # The samples that share a column are as many for all columns; a wide panel repeats them instead.
    per_column = ceil(SHOWN / max(1, width - 1))
    repeats = max(1, (width - 1) // SHOWN)
    shown = [0.0] * (SHOWN - len(rates)) + [*rates[-SHOWN:]]
    groups = [shown[max(0, end - per_column) : end] for end in range(len(shown), 0, -per_column)][::-1]
    means = [sum(group) / len(group) for group in groups for _ in range(repeats)]
    lines = max(1, height - (height >= AXIS_HEIGHT))
    text = [Line(None, " " + row.rstrip(), Tone.GOOD) for row in _bars(means, lines, most)]
    if height >= AXIS_HEIGHT:
        text.append(Line(None, " " + _axis(len(means)), Tone.MUTED))
    return PanelText(titles, text)


def _bars(rates: Sequence[float], height: int, most: float) -> list[str]:
    """Returns ``height`` lines, the top one first. A rate above 0 has at least the lowest bar."""
    steps = [max(1, round(rate / most * height * 8)) if rate > 0 else 0 for rate in rates]
    return ["".join(BARS[min(8, max(0, step - 8 * row))] for step in steps) for row in range(height - 1, -1, -1)]


def _axis(width: int) -> str:
    left, right = f"{format_duration(SHOWN * TOTAL_RATE_S)} ago", "now"
    middle = format_duration(SHOWN * TOTAL_RATE_S / 2)
    return left + middle.center(max(0, width - len(left) - len(right))) + right
