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
    OTHERS,
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
#: The units of the axes, the largest first.
UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
#: Width and height in inches.
SIZE = (9.0, 6.0)
#: The colour-blind-safe palette of Okabe and Ito, for the workers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
DISK_COLOUR, OTHERS_COLOUR, PEERS_COLOUR = "#BBBBBB", "#999999", "#666666"
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
#: Maximum number of workers on the worker axis, unless more have marks, and of labels there.
MAX_LABELS = 12


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
    # Without marks, a panel for them would be empty.
    heights = (5, 2, 2) if data.marks else (7, 2)
    rates, *marks, verified = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    workers = [band for band in data.rates if band not in (OTHERS, PEERS)]
    colours = {**dict(zip(workers, COLOURS, strict=False)), OTHERS: OTHERS_COLOUR, PEERS: PEERS_COLOUR}
    _draw_rates(rates, data, colours)
    for axes in marks:
        _draw_marks(axes, data, colours)
    _draw_verified(verified, data, colours)
    figure.suptitle(_shorten(title), fontsize=11)
    return figure


def _draw_rates(axes: Axes, data: ChartData, colours: dict[str, str]) -> None:
    unit, unit_name = _unit(max(map(sum, zip(*data.rates.values(), strict=True)), default=0))
    bands = [[rate / unit for rate in rates] for rates in data.rates.values()]
    labels = [f"{data.labels[band]}: {format_size(received[-1])}" for band, received in data.received.items()]
    axes.stackplot(data.times, *bands, labels=labels, colors=[colours[band] for band in data.rates], linewidth=0)
    if len(data.marks) <= MAX_LINES:
        for mark in data.marks:
            axes.axvline(mark.at, color="black", linewidth=0.6, linestyle=":")
    axes.set_ylabel(f"rate, {unit_name}/s")
    axes.set_xlim(0, data.times[-1])
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False, reverse=True)


def _draw_marks(axes: Axes, data: ChartData, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    marked = {mark.worker for mark in data.marks}
    workers = [name for name, band in data.bands.items() if band != PEERS]
    names = workers if len(workers) <= MAX_LABELS else [name for name in workers if name in marked]
    kinds = [kind for kind in SHAPES if any(mark.kind == kind for mark in data.marks)]
    for kind in kinds:
        marks = [mark for mark in data.marks if mark.kind == kind and mark.worker in names]
        axes.scatter(
            [mark.at for mark in marks],
            [names.index(mark.worker) for mark in marks],
            c=[colours[data.bands[mark.worker]] for mark in marks],
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
    unit, unit_name = _unit(data.total)
    bands = [[size / unit for size in (*sizes[:-1:2], sizes[-1])] for sizes in (data.reused, *data.received.values())]
    label = f"on disk: {format_size(data.reused[-1])}" if data.reused[-1] else "_"
    band_colours = [DISK_COLOUR, *(colours[band] for band in data.received)]
    drawn = axes.stackplot(times, *bands, colors=band_colours, linewidth=0, labels=[label])
    drawn[0].set_hatch("///")
    axes.axhline(data.total / unit, color="black", linewidth=0.8)
    axes.set_ylim(0, max(data.total / unit * 1.05, 1e-6))
    axes.set_ylabel(f"verified, {unit_name}")
    axes.set_xlabel("seconds since the start")
    if data.reused[-1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


def _unit(largest: float) -> tuple[int, str]:
    """Returns the unit for an axis up to ``largest`` bytes: its size in bytes, and its name."""
    return next(((size, name) for size, name in UNITS if largest >= size), (1, "B"))


def _shorten(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"
