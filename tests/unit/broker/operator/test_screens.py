"""The screens of the console are those in the repository, nothing on them is cut off, and all texts can be read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rich.style import Style
from textual.pilot import Pilot

from msd.broker.operator.console_app import ConsoleApp
from msd.broker.views.panel_layout import WIDE, Panel
from tests import console_screens
from tests.console_screens import SCREENS, FixedFeed, settle
from tests.unit.broker.operator.test_colours import MIN_CONTRAST, contrast

#: The titles of all panels, and of those that only a wide screen has.
TITLES, WIDE_TITLES = ("Workers", "Clients", "Files", "Rate", "Events", "Command for a client"), ("Selected row",)


class Drawn:
    """What all screens show."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        #: The colours of texts and their backgrounds, each pair with one of its texts.
        self.colours: dict[tuple[str, str], str] = {}

    def add(self, name: str, app: ConsoleApp) -> None:
        self.texts[name] = console_screens.screen_text(app)
        for text, style in segments(app):
            if text.strip() and style is not None and style.color is not None and style.bgcolor is not None:
                pair = style.color.get_truecolor().hex, style.bgcolor.get_truecolor().hex
                self.colours.setdefault(pair, text)


def segments(app: ConsoleApp) -> Iterator[tuple[str, Style | None]]:
    for strip in app.screen._compositor.render_strips():
        for text, style, _ in strip:
            yield text, style


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    drawn = Drawn()
    console_screens.draw(drawn.add)
    return drawn


def test_the_screens_are_those_in_the_repository(drawn: Drawn) -> None:
    saved = {path.stem: path.read_text(encoding="utf-8") for path in SCREENS.glob("*.txt")}
    assert {*drawn.texts} == {*saved}, "run make screenshots"
    for name, text in drawn.texts.items():
        assert text == saved[name], f"{name}: run make screenshots, and look at the difference"


def test_nothing_is_cut_off(drawn: Drawn) -> None:
    for name, text in drawn.texts.items():
        width, height = map(int, name.split("-")[0].split("x"))
        lines = text.splitlines()
        assert len(lines) == height, name
        assert max(map(len, lines)) <= width, name
        assert "…" not in text.replace("1…9", ""), name


def test_no_panel_is_missing_or_empty(drawn: Drawn) -> None:
    for name, text in drawn.texts.items():
        width = int(name.split("x")[0])
        for title in TITLES + (WIDE_TITLES if width >= WIDE else ()):
            line = next((number for number, line in enumerate(text.splitlines()) if title in line), None)
            assert line is not None, (name, title)
            below = text.splitlines()[line + 1]
            assert below.strip(" │┃"), (name, title)


def test_all_texts_have_enough_contrast(drawn: Drawn) -> None:
    assert len(drawn.colours) > 8
    for (text, background), example in drawn.colours.items():
        assert contrast(text, background) >= MIN_CONTRAST, (text, background, example)


def test_dialogs_the_filter_and_the_alarm_have_enough_contrast_too() -> None:
    drawn = Drawn()

    async def steps(app: ConsoleApp, feed: FixedFeed, pilot: Pilot[int]) -> None:
        feed.queued.append(console_screens.report(64, 3))
        await settle(app, feed, pilot)
        for keys in (["question_mark"], ["x", "slash"], ["a", "b"], ["escape", "down", "down", "down", "enter"]):
            await pilot.press(*keys)
            await pilot.pause()
            drawn.add(" ".join(keys), app)
        await pilot.press("x")
        app.history.on_lost("no answer", console_screens.NOW)
        app._draw()
        await pilot.pause()
        drawn.add("alarm", app)

    console_screens.run(steps)
    assert "Press any key to close." in drawn.texts["question_mark"]
    assert "words that" in drawn.texts["x slash"]
    assert "Worker 3: Failed" in drawn.texts["escape down down down enter"]
    assert "SERVER 5 HAS NOT ANSWERED since" in drawn.texts["alarm"]
    test_all_texts_have_enough_contrast(drawn)


def test_the_console_answers_four_questions_without_a_key(drawn: Drawn) -> None:
    """Which host or worker is slow, who downloads most, why worker 3 is not serving, how a friend gets the file."""
    for size in ("80x24", "120x40", "200x60"):
        text = drawn.texts[f"{size}-4-workers-3-clients"]
        assert f"slow: worker {console_screens.SLOW}" in text
        assert f"●    {console_screens.SLOW} Alive, slow " in text
        text = drawn.texts[f"{size}-64-workers-300-clients"]
        assert f"slow: {console_screens.SLOW_HOST}, worker {console_screens.SLOW}" in text
        assert "Alive, slow" in text
        first = next(line for line in text.splitlines() if "anna@laptop-30 " in line)
        assert "50.5 MiB/s" in first
        assert "fastest first" in text
        assert f"○    {console_screens.BROKEN} " in text
        assert console_screens.REASON in text
        assert "msd download NAME --server5 192.0.2.5:39223" in text
        assert "y copies it" in text


def test_each_panel_can_be_enlarged_on_a_small_screen() -> None:
    async def steps(app: ConsoleApp, feed: FixedFeed, pilot: Pilot[int]) -> None:
        feed.queued.append(console_screens.report(64, 300))
        await settle(app, feed, pilot)
        heights = {panel: app._views[panel].size.height for panel in Panel}
        for panel in (Panel.CLIENTS, Panel.FILES, Panel.EVENTS):
            await pilot.press("tab")
            await pilot.pause()
            assert app._views[panel].size.height > heights[panel]
            assert "…" not in console_screens.screen_text(app).replace("1…9", "")

    console_screens.run(steps)
