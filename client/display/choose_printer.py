"""Decides how a download is shown: live view, metric lines, JSON lines or a log."""

from __future__ import annotations

import math
import sys

from msd.client.display.printers import JsonPrinter, LinePrinter, LogPrinter, Printer, ResultPrinter
from msd.wire.support.output import has_cursor_movement


def choose_printer(*, json: bool, quiet: bool, verbose: bool, to_stdout: bool) -> tuple[Printer, float]:
    """Returns the printer for these flags and this terminal, and its maximum interval between two ``Progress`` events
    in seconds. The caller chooses the actual interval.

    ``to_stdout`` is True if the file itself is written to standard output: on a terminal no progress is shown, because
    it would be mixed with the file.
    """
    if verbose:
        # The log is written to standard error, so no live view is shown.
        return LogPrinter(JsonPrinter() if json else ResultPrinter()), math.inf
    if json:
        return JsonPrinter(), math.inf
    if to_stdout and sys.stdout.isatty():
        return LinePrinter(quiet=quiet, metrics=False), math.inf
    if quiet or not sys.stderr.isatty() or not has_cursor_movement():
        return LinePrinter(quiet=quiet), math.inf
    from msd.client.display.live_view import PROGRESS_INTERVAL_S, LiveView

    return LiveView(sys.stderr), PROGRESS_INTERVAL_S
