"""``msd plot``: draws the report of a download as a picture. The one module that knows matplotlib.

What is drawn is computed in ``client/report/chart_data.py``. The same report makes the same file, byte for byte.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msd.client.report.chart_data import ChartData, chart_data
from msd.client.report.report_file import VERSION, check_file, replace_file
from msd.wire.errors import DiskError, UsageError
from msd.wire.support.install_command import install_command
from msd.wire.support.units import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What a file may be called, and what is not to be written into it, so that it is the same each time.
FORMATS: dict[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
}
#: Inches.
SIZE = (9.0, 6.0)
#: Okabe and Ito's colours, which the colour-blind can tell apart; with more workers they come again.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
DISK_COLOUR = "#BBBBBB"
#: What stands for what in a worker's row: shapes, for colour alone does not tell.
SHAPES = {
    "slept": "v",
    "woke": "^",
    "died": "X",
    "came back": "P",
    "lied": "*",
    "set aside": "s",
    "froze": "H",
    "lost": "d",
    "given up": "8",
}
#: Above so many marks, lines through the rates would hide them.
MAX_LINES = 40
#: Workers that the legend names.
MAX_NAMED = 16


def plot(report: str, output: str) -> None:
    """Draws the report in the file ``report`` into the file ``output``. Raises ``MsdError``."""
    suffix = Path(output).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"-o {output}: a picture is a file named *{', *'.join(FORMATS)}")
    check_file(output, "-o")
    read = _read(report)
    try:
        shown = chart_data(read["events"])
        title = _title(read)
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        if str(error) == "nothing was transferred":
            raise UsageError(f"{report}: there is nothing to draw: {error}") from None
        raise _no_report(report) from None
    try:
        import matplotlib
    except ImportError:
        raise UsageError(f"a chart needs matplotlib: {install_command('matplotlib')}") from None
    drawn = io.BytesIO()
    # Names in an SVG would be random otherwise.
    with matplotlib.rc_context({"svg.hashsalt": "msd"}):
        _draw(shown, title).savefig(drawn, format=suffix[1:], metadata=FORMATS[suffix], dpi=150)
    try:
        replace_file(Path(output), drawn.getvalue())
    except OSError as error:
        raise DiskError(f"{output}: cannot be written: {error.strerror}") from None


def _read(file: str) -> dict[str, Any]:
    """The report in ``file``, as far as its version says."""
    try:
        read = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file; msd download --report FILE writes one") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _no_report(file) from None
    if not isinstance(read, dict):
        raise _no_report(file)
    version = read.get("version")
    if version is None and "received_bytes" in read:
        raise UsageError(f"{file}: an old report, without events: let msd download --report write a new one")
    if isinstance(version, int) and version > VERSION:
        raise UsageError(f"{file}: a report of version {version}, and this msd knows version {VERSION}: update it")
    if version != VERSION or not isinstance(read.get("events"), list):
        raise _no_report(file)
    return read


def _no_report(file: str) -> UsageError:
    return UsageError(f"{file}: is no report of a download; msd download --report FILE writes one")


def _title(report: dict[str, Any]) -> str:
    if "error" in report:
        return f"ended: {report['error']['message']}"
    # What a name holds is not matplotlib's mathematics.
    return f"{report['file']}: {amount(report['bytes'])} in {report['seconds']:.1f} s".replace("$", r"\$")


def _draw(shown: ChartData, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    rates, rows, share = figure.subplots(3, 1, sharex=True, height_ratios=(5, 2, 2))
    names = [*shown.rates]
    colours = {name: COLOURS[position % len(COLOURS)] for position, name in enumerate(names)}
    _draw_rates(rates, shown, colours)
    _draw_rows(rows, shown, colours)
    _draw_share(share, shown, colours)
    figure.suptitle(_short(title), fontsize=11)
    return figure


def _draw_rates(axes: Axes, shown: ChartData, colours: dict[str, str]) -> None:
    bands = [[rate / 1e6 for rate in rates] for rates in shown.rates.values()]
    labels = [f"worker {name}: {amount(received[-1])}" for name, received in shown.received.items()]
    labels[MAX_NAMED:] = [f"_{label}" for label in labels[MAX_NAMED:]]
    axes.stackplot(shown.times, *bands, labels=labels, colors=[*colours.values()], linewidth=0)
    if len(shown.marks) <= MAX_LINES:
        for mark in shown.marks:
            axes.axvline(mark.at, color="black", linewidth=0.6, linestyle=":")
    axes.set_ylabel("rate, MB/s")
    axes.set_xlim(0, shown.times[-1])
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False, reverse=True)


def _draw_rows(axes: Axes, shown: ChartData, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    names = [*colours]
    happened = [what for what in SHAPES if any(mark.what == what for mark in shown.marks)]
    for what in happened:
        marks = [mark for mark in shown.marks if mark.what == what and mark.worker in colours]
        axes.scatter(
            [mark.at for mark in marks],
            [names.index(mark.worker) for mark in marks],
            c=[colours[mark.worker] for mark in marks],
            marker=SHAPES[what],
            s=45,
            edgecolors="black",
            linewidths=0.6,
            zorder=3,
            clip_on=False,
        )
    axes.set_ylim(len(names) - 0.4, -0.6)
    step = 1 + (len(names) - 1) // MAX_NAMED
    axes.set_yticks(range(0, len(names), step), names[::step], fontsize=8)
    if shown.left_out:
        axes.set_title(f"and {shown.left_out} marks more", fontsize=8, loc="right")
    axes.grid(axis="y", linewidth=0.4)
    axes.set_ylabel("worker")
    # Named without a colour: that says whose it is.
    named = [
        Line2D([], [], marker=SHAPES[what], label=what, color="white", markeredgecolor="black") for what in happened
    ]
    if named:
        axes.legend(handles=named, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


def _draw_share(axes: Axes, shown: ChartData, colours: dict[str, str]) -> None:
    """How much of the file is verified; what was found on the disk apart from the rest."""
    # It only ever grows: fewer points will do.
    times = [*shown.times[:-1:2], shown.times[-1]]
    bands = [[size / 1e6 for size in (*sizes[:-1:2], sizes[-1])] for sizes in (shown.reused, *shown.received.values())]
    label = f"on disk: {amount(shown.reused[-1])}" if shown.reused[-1] else "_"
    drawn = axes.stackplot(times, *bands, colors=[DISK_COLOUR, *colours.values()], linewidth=0, labels=[label])
    drawn[0].set_hatch("///")
    axes.axhline(shown.total / 1e6, color="black", linewidth=0.8)
    axes.set_ylim(0, max(shown.total / 1e6 * 1.05, 1e-6))
    axes.set_ylabel("verified, MB")
    axes.set_xlabel("seconds since the start")
    if shown.reused[-1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"
