"""Installs this checkout in ``/opt`` of another root file system, by mounts, for users without rights in this one."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from tests.engine.charts import ROOT


def installed_msd(folder: Path) -> dict[str, Path]:
    """Returns the folder of this machine for each folder of the other one. Writes the command ``msd`` to ``folder``.

    Python is copied by a mount, too: it may be in the home folder of this user.
    """
    command = folder / "bin" / "msd"
    command.parent.mkdir(parents=True)
    python = f"/opt/python/bin/python3.{sys.version_info.minor}"
    variables = "LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/checkout/src:/opt/packages"
    command.write_text(f'#!/bin/sh\n{variables} exec {python} -P -m msd "$@"\n')
    command.chmod(0o755)
    return {
        "/opt/msd/bin": command.parent,
        "/opt/checkout": ROOT,
        "/opt/packages": Path(sysconfig.get_path("purelib")),
        "/opt/python": Path(sys.base_prefix),
    }
