"""The loop of a download: how long it is away from the network."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from client.disk import Copy
from client.partfile import PartFile
from client.transfer import Transfer
from client.update import Update
from tests.unit.test_client_partfile import DATA, SIZE, STAR


class Quiet:
    """Peers of whom nobody is there; counts how often they were listened to."""

    numbers = (1, 2, 3, 4)
    status = None
    stalled = 0.0

    def __init__(self) -> None:
        self.ready: dict[int, Any] = {}
        self.turns = 0

    def turn(self, deadline: float) -> list[Any]:
        self.turns += 1
        return []

    def news(self) -> None:
        return None

    def why_waiting(self) -> str:
        return "nobody is there"


@pytest.mark.parametrize("update", [False, True])
def test_the_network_waits_for_no_more_than_one_segment_s_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool
) -> None:
    output = tmp_path / "film.mp4"
    held = output if update else output.with_name("film.mp4.part")
    held.write_bytes(DATA)
    peers = Quiet()
    hashed_at: list[int] = []
    read = Copy.read

    def counted(copy: Copy, index: int) -> memoryview | None:
        hashed_at.append(peers.turns)
        return read(copy, index)

    monkeypatch.setattr(Copy, "read", counted)
    with closing(Update(output, STAR) if update else PartFile(output, STAR)) as part:
        transfer = Transfer(
            peers,  # type: ignore[arg-type]
            STAR,
            part,
            timeout=None,
            interval=1.0,
            memory=64 << 20,
            on_event=lambda event: None,
        )
        transfer.run()
    assert transfer.reused == SIZE
    # Each hash in a turn of its own.
    assert len(hashed_at) == len({*hashed_at}) == STAR.segments
