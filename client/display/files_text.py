"""Converts the progress and the result of a download of several files to text. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msd.client.display.peer_totals import passed_on_text, peer_bytes
from msd.client.events import FileCounts, FilesProgress, FilesReport, FilesStarted, Progress
from msd.wire.support.presentable_names import presentable
from msd.wire.support.units import format_count, format_duration, format_rate, format_size

#: The maximum number of files in flight that a line names.
MAX_NAMED_FILES = 3


def selection_title(event: FilesStarted) -> str:
    """Returns what is downloaded."""
    return " ".join("all files" if name in (".", "./", "/") else name for name in event.names)


def selection_text(event: FilesStarted) -> str:
    """Returns what is downloaded, and where to."""
    limit = f", limited to {format_rate(event.max_rate)}" if event.max_rate else ""
    action = "dry run" if event.dry_run else f"to {event.output}"
    return presentable(f"{selection_title(event)}: {action}{limit}")


def files_lines(progress: Progress) -> Iterator[str]:
    """Yields a line with the numbers of files and bytes and the time left, and one with the files in flight."""
    files = progress.files
    assert files is not None
    figures = [*file_figures(files), f"{format_size(progress.bytes)} of {known_size(progress)}"]
    if files.is_listed and progress.current_rate and progress.bytes < progress.total:
        figures.append(f"{format_duration((progress.total - progress.bytes) / progress.current_rate)} left")
    yield ", ".join(figures)
    if named := files.in_flight[:MAX_NAMED_FILES]:
        sizes = (f"{presentable(f.name)} {format_size(f.bytes)} of {format_size(f.total)}" for f in named)
        yield f"In flight: {', '.join(sizes)}"


def file_figures(files: FilesProgress) -> list[str]:
    """Returns the number of files that are in place, of those that are known, and the numbers of those not fetched."""
    more = "" if files.is_listed else "+"
    return [f"{files.counts.done:,} of {files.counts.listed:,}{more} files", *_other_counts(files.counts)]


def known_size(progress: Progress) -> str:
    """Returns the number of bytes to fetch, as far as it is known."""
    more = "+" if progress.files is not None and not progress.files.is_listed else ""
    return f"{format_size(progress.total)}{more}"


def files_result(report: FilesReport) -> str:
    """Returns the line with the result."""
    counts = report.counts
    if report.dry_run:
        return _dry_run_result(report)
    figures, others = [format_count(counts.listed, "file")], _other_counts(counts)
    passed_on = passed_on_text(report)
    if not counts.fetched and not report.errors:
        if not counts.listed:
            return f"{report.output}: no files to fetch"
        return f"{report.output}: already up to date: {figures[0]} ({', '.join(others)}){passed_on}"
    if counts.size:
        figures.append(f"{format_size(counts.size)} verified in {report.transfer_seconds:.2f} s")
    if report.rate:
        figures.append(format_rate(report.rate))
    details = [f"{counts.fetched:,} fetched", *others]
    if on_disk := report.reused_bytes - report.zero_bytes:
        details.append(f"{format_size(on_disk)} reused from disk")
    count, from_peers = peer_bytes(report.workers)
    if count:
        details.append(f"{format_size(from_peers)} from {format_count(count, 'peer')}")
    return f"{', '.join(figures)} ({', '.join(details)}): {report.output}{passed_on}"


def _dry_run_result(report: FilesReport) -> str:
    """Returns a line for each file that would be fetched, and the total."""
    wanted = report.wanted
    lines = [f"{format_size(file.bytes):>10}  {file.outcome.value:<7}  {presentable(file.name)}" for file in wanted]
    numbers = Counter(file.outcome.value for file in wanted)
    details = [*(f"{number:,} {reason}" for reason, number in numbers.items()), *_other_counts(report.counts)]
    listed, size = format_count(report.counts.listed, "file"), format_size(sum(file.bytes for file in wanted))
    total = f"{len(wanted):,} of {listed} would be fetched, {size}" if wanted else f"{listed}, nothing to fetch"
    origin = f" ({', '.join(details)})" if details else ""
    return "\n".join([*lines, f"{total}{origin}: {report.output}"])


def _other_counts(counts: FileCounts) -> list[str]:
    """Returns the numbers of files that are not fetched."""
    numbers = ((counts.kept, "kept"), (counts.same, "verified on disk"), (counts.failed, "failed"))
    return [f"{number:,} {text}" for number, text in numbers if number]
