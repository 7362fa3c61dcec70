"""The colours of the console, as hexadecimal RGB.

Each text has a contrast of at least 4.5 to 1 to its background; a test computes it from what is drawn.
"""

from __future__ import annotations

from msd.broker.views.panel_text import Tone

BACKGROUND = "#11151a"
#: The background of the first and last line, of the alarm, and of the selected row of the focused panel.
BAR, ALARM, SELECTED = "#1c3654", "#8f1d1d", "#1d3a59"
TEXT, BRIGHT = "#e3e7ec", "#ffffff"
#: The frame of a panel, and of the focused one; headings.
FRAME, FOCUSED_FRAME, HEADING = "#8b97a6", "#7cc7ff", "#a9b4c2"
TONES = {
    Tone.NORMAL: TEXT,
    Tone.GOOD: "#8fdca0",
    Tone.WARNING: "#ffcf6b",
    Tone.BAD: "#ffa3a3",
    Tone.MUTED: "#a9b4c2",
    Tone.STRONG: BRIGHT,
}
