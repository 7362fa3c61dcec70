"""Messages between the broker and its child processes."""

from __future__ import annotations

import pytest

from msd.wire.errors import ProtocolError
from msd.wire.protocol import messages
from msd.wire.protocol.child_messages import (
    Indexed,
    IndexingDone,
    IndexLeftOut,
    IndexLine,
    IndexNote,
    IndexProgress,
    IndexSkipped,
    IndexSkips,
    WorkerSettings,
)
from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.states import WantedState

SETTINGS = WorkerSettings(
    name="1",
    number=1,
    parent=100,
    bind="tcp://127.0.0.1:21018",
    control="ipc://control",
    token=b"token",
    catalogue="/cache/catalogue",
    edition=1,
    rate=0,
    wanted=WantedState.AWAKE,
)


def test_settings_without_keys_have_no_secret() -> None:
    decoded = decode(encode(SETTINGS), WorkerSettings)
    assert decoded == SETTINGS
    assert (decoded.secret, decoded.keys) == (b"", "")


@pytest.mark.parametrize(
    "line",
    [
        IndexProgress(name="film.bin", done=1, total=2, files=0, total_files=3),
        IndexingDone(),
        IndexNote(text="cannot read the digest cache"),
        IndexSkipped(name="film.bin", reason="not a regular file"),
        IndexLeftOut(text="1 hidden (--hidden)"),
        IndexSkips(text="1 file: Permission denied (1)"),
        Indexed(files=1, size=2, hashed=2, catalogue="ab", edition=3),
    ],
    ids=["progress", "done", "note", "skipped", "left out", "skips", "indexed"],
)
def test_each_line_of_the_indexer_is_decoded_to_its_type(line: IndexLine) -> None:
    decoded = decode(encode(line), IndexLine)
    assert type(decoded) is type(line)
    assert decoded == line


@pytest.mark.parametrize("family", [messages.DataRequest, messages.ControlRequest, messages.ControlReply])
def test_child_messages_are_malformed_in_the_network_protocol(family: object) -> None:
    with pytest.raises(ProtocolError):
        decode(encode(SETTINGS), family)  # type: ignore[arg-type]
