"""What an output does if its class does not say otherwise."""

from __future__ import annotations

from msd.client.storage.output import Output


def test_an_output_reuses_nothing_and_can_restart() -> None:
    output = Output()
    assert ([*output.candidates()], [*output.zero_segments()], output.uncopied_bytes) == ([], [], 0)
    assert not output.copy_next()
    assert not output.output_matches
    assert output.can_restart
