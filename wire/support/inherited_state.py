"""Puts in order what the parent process left to a command: blocked and ignored signals, standard streams that are
closed or do not block, a locale whose file names are not UTF-8.

``docs/operations.md`` lists what is respected and what is reset. Installs no signal handlers.
"""

from __future__ import annotations

import io
import os
import signal
import stat
import sys


def use_utf8_file_names() -> None:
    """Makes file names UTF-8, as they are in the protocol, also if the locale has another encoding such as Latin-1:
    starts the command again in Python's UTF-8 mode, which its child processes inherit. Text is still printed in the
    encoding of the locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1" or sys.flags.ignore_environment:
        return
    import locale

    streams = os.environ.get("PYTHONIOENCODING", locale.getpreferredencoding(False))
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": streams}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606


def reset_signals() -> None:
    """Unblocks all signals and stops ignoring SIGTERM, which must end a command, and SIGCHLD, without which the exit
    codes of child processes are lost.

    All other ignored signals stay ignored: SIGHUP after ``nohup``, SIGINT in a background job of a script.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGCHLD):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def open_closed_streams() -> None:
    """Opens /dev/null in place of each standard stream that the parent closed (``>&-``). Otherwise the next socket
    would get the stream's descriptor, and text would be written to it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w"), write_through=True))


def make_streams_blocking() -> None:
    """Makes standard output and standard error block: otherwise each write fails while their reader is slow.

    A pipe or terminal is opened once more: its open file belongs to the parent, too, which may need it as it is.
    """
    for number in (1, 2):
        if os.get_blocking(number) or stat.S_ISREG(os.fstat(number).st_mode):
            continue
        try:
            # With O_NONBLOCK, opening a FIFO does not wait for a reader.
            own = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            # A socket, a FIFO whose reader has closed it, or a pipe or terminal of another user.
            os.set_blocking(number, True)
        else:
            os.set_blocking(own, True)
            os.dup2(own, number)
            os.close(own)
