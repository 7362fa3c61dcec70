"""``msd plot``: draws a chart of a download's report. The only module that imports matplotlib.

``client/report/chart_data.py`` computes the content. The same report always gives the same file, byte for byte.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msd.client.report.chart_data import (
    AWAKE,
    CORRUPT,
    PEERS,
    RECOVERED,
    STATE_MARKS,
    ChartData,
    NothingTransferredError,
    chart_data,
)
from msd.client.report.report_file import VERSION, check_writable, write_file
from msd.wire.errors import DiskError, UsageError
from msd.wire.support.install_command import install_command
from msd.wire.support.units import format_count, format_rate, format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The file formats, by suffix, each with the metadata to omit so that the file is reproducible.
FORMATS: dict[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
}
MIB = 1 << 20
#: Width and height in inches.
SIZE = (9.0, 6.0)
#: The colour-blind-safe palette of Okabe and Ito; repeated if there are more workers than colours.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
DISK_COLOUR = "#BBBBBB"
#: The shape of each kind of mark. Kinds do not differ in colour, because the colour identifies the worker.
SHAPES = {
    STATE_MARKS["asleep"]: "v",
    AWAKE: "^",
    STATE_MARKS["dead"]: "X",
    RECOVERED: "P",
    CORRUPT: "*",
    STATE_MARKS["set aside"]: "s",
    STATE_MARKS["silent"]: "H",
    STATE_MARKS["lost"]: "d",
    STATE_MARKS["failed"]: "8",
}
#: With more marks than this, no vertical lines are drawn at the marks: the lines would hide the rates.
MAX_LINES = 40
#: Maximum number of workers in the legend, and of labels on the worker axis.
MAX_LABELS = 16


def plot(report: str, output: str) -> None:
    """Draws a chart of the report file ``report`` and writes it to the file ``output``. Raises ``MsdError``."""
    suffix = Path(output).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"-o {output}: the file name must end in {' or '.join(FORMATS)}")
    check_writable(output, "-o")
    values = _read(report)
    try:
        data = chart_data(values["events"])
        title = _title(values)
    except NothingTransferredError:
        raise UsageError(f"{report}: nothing to draw: the download transferred nothing") from None
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError):
        raise _not_a_report(report) from None
    try:
        import matplotlib
    except ImportError:
        raise UsageError(f"a chart needs matplotlib: {install_command('matplotlib')}") from None
    image = io.BytesIO()
    # Without a fixed salt, the ids in an SVG are random.
    with matplotlib.rc_context({"svg.hashsalt": "msd"}):
        _draw(data, title).savefig(image, format=suffix[1:], metadata=FORMATS[suffix], dpi=150)
    try:
        write_file(Path(output), image.getvalue())
    except OSError as error:
        raise DiskError(f"{output}: cannot be written: {error.strerror}: choose another path with -o") from None


def _read(file: str) -> dict[str, Any]:
    """Reads a report and checks its version."""
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file: msd download --report FILE writes one") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _not_a_report(file) from None
    if not isinstance(values, dict):
        raise _not_a_report(file)
    version = values.get("version")
    if version is None and "received_bytes" in values:
        raise UsageError(f"{file} is an old report without events: write a new one with msd download --report")
    if isinstance(version, int) and version > VERSION:
        raise UsageError(
            f"{file} is a version {version} report, but this msd supports only version {VERSION}: update msd"
        )
    if version != VERSION or not isinstance(values.get("events"), list):
        raise _not_a_report(file)
    return values


def _not_a_report(file: str) -> UsageError:
    return UsageError(f"{file} is not a download report: msd download --report FILE writes one")


def _title(report: dict[str, Any]) -> str:
    if "error" in report:
        return f"failed: {report['error']['message']}"
    name = report["file"] if "file" in report else format_count(report["files"]["listed"], "file")
    verified = f"{format_size(report['bytes'])} verified in {report['transfer_seconds']:.2f} s"
    # matplotlib would parse text between dollar signs as mathematics.
    return f"{name}: {verified}, {format_rate(report['rate'])}".replace("$", r"\$")


def _draw(data: ChartData, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    rates, marks, verified = figure.subplots(3, 1, sharex=True, height_ratios=(5, 2, 2))
    names = [*data.rates]
    colours = {name: COLOURS[position % len(COLOURS)] for position, name in enumerate(names)}
    _draw_rates(rates, data, colours)
    _draw_marks(marks, data, colours)
    _draw_verified(verified, data, colours)
    figure.suptitle(_shorten(title), fontsize=11)
    return figure


def _draw_rates(axes: Axes, data: ChartData, colours: dict[str, str]) -> None:
    bands = [[rate / MIB for rate in rates] for rates in data.rates.values()]
    names = [name if name == PEERS else f"worker {name}" for name in data.received]
    labels = [
        f"{name}: {format_size(received[-1])}" for name, received in zip(names, data.received.values(), strict=True)
    ]
    labels[MAX_LABELS:] = [f"_{label}" for label in labels[MAX_LABELS:]]
    axes.stackplot(data.times, *bands, labels=labels, colors=[*colours.values()], linewidth=0)
    if len(data.marks) <= MAX_LINES:
        for mark in data.marks:
            axes.axvline(mark.at, color="black", linewidth=0.6, linestyle=":")
    axes.set_ylabel("rate, MiB/s")
    axes.set_xlim(0, data.times[-1])
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False, reverse=True)


def _draw_marks(axes: Axes, data: ChartData, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    names = [*colours]
    kinds = [kind for kind in SHAPES if any(mark.kind == kind for mark in data.marks)]
    for kind in kinds:
        marks = [mark for mark in data.marks if mark.kind == kind and mark.worker in colours]
        axes.scatter(
            [mark.at for mark in marks],
            [names.index(mark.worker) for mark in marks],
            c=[colours[mark.worker] for mark in marks],
            marker=SHAPES[kind],
            s=45,
            edgecolors="black",
            linewidths=0.6,
            zorder=3,
            clip_on=False,
        )
    axes.set_ylim(len(names) - 0.4, -0.6)
    step = 1 + (len(names) - 1) // MAX_LABELS
    axes.set_yticks(range(0, len(names), step), names[::step], fontsize=8)
    if data.omitted_marks:
        axes.set_title(f"{data.omitted_marks} more marks", fontsize=8, loc="right")
    axes.grid(axis="y", linewidth=0.4)
    axes.set_ylabel("worker")
    # The legend has no colours, because colours identify workers.
    handles = [
        Line2D([], [], marker=SHAPES[kind], label=kind, color="white", markeredgecolor="black") for kind in kinds
    ]
    if handles:
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


def _draw_verified(axes: Axes, data: ChartData, colours: dict[str, str]) -> None:
    """Draws the verified bytes over time, by source (the disk and each worker)."""
    # The curves are monotonic, so half the points are enough.
    times = [*data.times[:-1:2], data.times[-1]]
    bands = [[size / MIB for size in (*sizes[:-1:2], sizes[-1])] for sizes in (data.reused, *data.received.values())]
    label = f"on disk: {format_size(data.reused[-1])}" if data.reused[-1] else "_"
    drawn = axes.stackplot(times, *bands, colors=[DISK_COLOUR, *colours.values()], linewidth=0, labels=[label])
    drawn[0].set_hatch("///")
    axes.axhline(data.total / MIB, color="black", linewidth=0.8)
    axes.set_ylim(0, max(data.total / MIB * 1.05, 1e-6))
    axes.set_ylabel("verified, MiB")
    axes.set_xlabel("seconds since the start")
    if data.reused[-1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


def _shorten(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"
