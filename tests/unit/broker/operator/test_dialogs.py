"""The console's dialogs return the operator's answer."""

from __future__ import annotations

import asyncio
import math

import pytest
from textual.app import App
from textual.screen import ModalScreen

from msd.broker.operator import dialogs
from msd.broker.operator.dialogs import CommandShown, Details, Help, LinkShown, Question
from msd.broker.views.status_table import SuggestedCommand
from msd.wire.config.invitations import Invitation
from msd.wire.config.links import Link
from msd.wire.net.endpoints import Endpoint


class DialogApp(App[None]):
    """Opens a dialog when the app starts, and records the dialog's result."""

    CSS = dialogs.CSS

    def __init__(self, dialog: ModalScreen[bool] | ModalScreen[None]) -> None:
        super().__init__()
        self.results: list[bool | None] = []
        self.text = ""
        self._dialog = dialog

    def on_mount(self) -> None:
        self.push_screen(self._dialog, self.results.append)


def answer(dialog: ModalScreen[bool] | ModalScreen[None], *keys: str) -> DialogApp:
    """Shows a dialog on a screen of 80 × 24, records the screen's text and presses ``keys``."""
    app = DialogApp(dialog)

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            app.text = "\n".join(strip.text for strip in app.screen._compositor.render_strips())
            await pilot.press(*keys)

    asyncio.run(run())
    return app


@pytest.mark.parametrize(
    ("key", "result"), [("y", [True]), ("n", [False]), ("escape", [False]), ("q", [False]), ("x", [])]
)
def test_only_y_n_escape_and_q_answer_a_question(key: str, result: list[bool]) -> None:
    app = answer(Question("Stop the servers?"), key)
    assert "Stop the servers?" in app.text
    assert "y yes   n no" in app.text
    assert app.results == result


@pytest.mark.parametrize("key", ["x", "escape", "enter", "1"])
def test_any_key_closes_the_help(key: str) -> None:
    assert answer(Help(owns_servers=True, link="link"), key).results == [None]


def test_the_help_says_what_happens_to_the_servers() -> None:
    own, other = (answer(Help(owns_servers=owns, link="command")).text for owns in (True, False))
    assert "stop the servers at once" in own
    assert other.count("leave this console; the servers keep running") == 2
    for text in (own, other):
        assert "Press any key to close." in text
        assert "link" not in text
    text = answer(Help(owns_servers=True, link="link for a client")).text
    assert "copy and show the link for a client, for a friend" in text
    assert "Press any key to close." in text, "the help fits the smallest screen"


def test_the_link_is_shown_in_full_with_its_terms_until_a_key_is_pressed() -> None:
    link = Link(Endpoint("192.0.2.7", 39223), "films/" * 20, bytes(32), bytes(16))
    app = answer(LinkShown(Invitation(link, "serve-1", math.inf), 80), "x")
    shown = "".join(line.strip(" │") for line in app.text.splitlines())
    assert link.text in shown
    assert "the holder of this link may download the folder films/" in shown
    assert "msd keys revoke serve-1" in shown
    assert app.results == [None]


def test_a_command_is_shown_so_that_it_can_be_pasted() -> None:
    command = f"msd download NAME --server5 192.0.2.5:39223 --server-key {'f' * 64}"
    app = answer(CommandShown(SuggestedCommand("Command for a client", command), 80), "x")
    lines = [line.strip(" │") for line in app.text.splitlines()]
    assert "Command for a client, copied if the terminal allows that" in lines
    start = lines.index("msd download NAME --server5 192.0.2.5:39223 --server-key \\")
    assert lines[start + 1] == "f" * 64
    assert app.results == [None]


def test_what_must_be_known_about_a_command_is_below_it() -> None:
    app = answer(CommandShown(SuggestedCommand("Command", "msd download NAME", ("NAME stands for a file.",)), 80), "x")
    lines = [line.strip(" │") for line in app.text.splitlines()]
    assert lines.index("NAME stands for a file.") == lines.index("msd download NAME") + 2


@pytest.mark.parametrize("events", [1, 5, 9, 30])
def test_the_end_of_long_details_is_not_cut_off(events: int) -> None:
    reason = "exited with code 1: cannot read /srv/films: Permission denied"
    paragraphs = [f"Worker 3: Failed: {reason}", *(f"{number} ! worker 3 died: {reason}" for number in range(events))]
    app = answer(Details(paragraphs, 80, 24), "x")
    lines = [line.strip(" │") for line in app.text.splitlines()]
    assert "Press any key to close." in lines, app.text
    assert any(line.startswith("Worker 3: Failed") for line in lines)
    assert len([line for line in lines if "! worker 3" in line]) == min(events, 8), "the last ones are left out"


def test_details_are_wrapped_between_words() -> None:
    app = answer(Details(["Worker 3: Failed", "It does not serve. " * 9], 80, 24), "x")
    lines = [line.strip(" │") for line in app.text.splitlines()]
    assert "Worker 3: Failed" in lines
    assert {line.split(" ")[-1] for line in lines if line.startswith("It does")} <= {"It", "does", "not", "serve."}
    assert app.results == [None]
