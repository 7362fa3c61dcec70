"""The console on a terminal, driven by Textual's pilot; what it knows comes from a source of the test's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.events import Key, Resize
from textual.geometry import Size
from textual.pilot import Pilot

from msd.broker.operator.console_app import REDRAW, ConsoleApp
from msd.broker.operator.status_feed import Heard, Lost, Note
from msd.wire.config.settings import Servers
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import LoggedEvent, StatusReport
from msd.wire.protocol.states import WorkerState
from tests.system import TIMEOUT
from tests.unit.snapshots import PORTS, snapshot, with_worker

SERVERS = Servers(Endpoint("127.0.0.1", 39223), {}, pinned=False)


class FakeSource:
    """Says what the test has it say, and remembers the orders."""

    def __init__(self) -> None:
        self.waiting: list[Heard] = []
        self.toggled: list[int] = []
        self.flood: Callable[[], list[Heard]] = list

    def heard(self) -> list[Heard]:
        waiting, self.waiting = self.waiting, []
        return waiting + self.flood()

    def toggle(self, number: int) -> None:
        self.toggled.append(number)

    def close(self) -> None:
        pass


class CountingConsole(ConsoleApp):
    """Counts what reaches the terminal."""

    frames = 0

    def _display(self, *arguments: Any) -> None:
        self.frames += 1
        super()._display(*arguments)


class Scene:
    """A console in front of a test."""

    def __init__(self, app: CountingConsole, source: FakeSource, pilot: Pilot[int]) -> None:
        self.app = app
        self.source = source
        self.pilot = pilot

    @property
    def text(self) -> str:
        return "\n".join(strip.text for strip in self.app.screen._compositor.render_strips())

    async def until(self, what: str, probe: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not probe():
            assert time.monotonic() < deadline, f"waited for {what}:\n{self.text}"
            await self.pilot.pause(0.01)

    async def sees(self, text: str) -> None:
        await self.until(repr(text), lambda: text in self.text)

    async def hears(self, heard: Heard, seen: str) -> None:
        """The source says something, and this is seen."""
        self.source.waiting.append(heard)
        await self.sees(seen)


def play(
    act: Callable[[Scene], Awaitable[None]], *, owns: bool = True, size: tuple[int, int] = (80, 24)
) -> CountingConsole:
    """Runs a console with four workers awake, and lets ``act`` act; the console afterwards."""
    source = FakeSource()
    app = CountingConsole(source, SERVERS, owns=owns)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            scene = Scene(app, source, pilot)
            await scene.hears(snapshot(), "4 of 4 alive")
            await act(scene)

    asyncio.run(run())
    return app


def test_a_digit_toggles_that_worker_and_one_without_a_worker_none() -> None:
    async def act(scene: Scene) -> None:
        await scene.pilot.press("2", "0", "5", "9", "4")
        assert scene.source.toggled == [2, 4]
        await scene.sees("you toggle worker 4")
        await scene.hears(snapshot(WorkerState.AWAKE, WorkerState.ASLEEP), "worker 2 fell asleep")
        assert "○  2 27215 Dead: asleep" in scene.text

    play(act)


def test_arrows_mark_a_worker_and_enter_toggles_it() -> None:
    async def act(scene: Scene) -> None:
        await scene.sees("›●  1")
        await scene.pilot.press("down", "down")
        await scene.sees("›●  3")
        await scene.pilot.press("enter", "up", "enter")
        assert scene.source.toggled == [3, 2]

    play(act)


def test_the_mark_stays_while_things_change() -> None:
    async def act(scene: Scene) -> None:
        await scene.pilot.press("down")
        await scene.hears(
            snapshot(WorkerState.AWAKE, WorkerState.SILENT, WorkerState.AWAKE, WorkerState.AWAKE), "Dead: silent"
        )
        await scene.sees("›○  2")

    play(act)


def test_without_clients_q_quits() -> None:
    async def act(scene: Scene) -> None:
        await scene.pilot.press("q")

    assert play(act).return_value == 0


def test_with_clients_q_asks_and_only_y_quits() -> None:
    async def act(scene: Scene) -> None:
        await scene.hears(snapshot(clients=2), "2 clients served")
        for no in ("n", "escape", "q"):
            await scene.pilot.press("q")
            await scene.sees("2 clients are being served. End the servers all the same?")
            await scene.pilot.press("1")  # is not for what lies behind
            await scene.pilot.press(no)
            await scene.until("the question to go", lambda: len(scene.app.screen_stack) == 1)
        assert scene.source.toggled == []
        assert scene.app.is_running
        await scene.pilot.press("q", "y")

    assert play(act).return_value == 0


def test_a_console_from_elsewhere_is_left_without_a_question() -> None:
    async def act(scene: Scene) -> None:
        await scene.hears(snapshot(clients=2), "2 clients served")
        await scene.sees("q leave")
        await scene.pilot.press("q")

    assert play(act, owns=False).return_value == 0


def test_ctrl_c_ends_it_at_once_even_before_an_open_question() -> None:
    async def act(scene: Scene) -> None:
        await scene.hears(snapshot(clients=2), "2 clients served")
        await scene.pilot.press("q")
        await scene.sees("End the servers all the same?")
        await scene.pilot.press("ctrl+c")

    assert play(act).return_value == 130


def test_the_help_opens_and_any_key_closes_it() -> None:
    async def act(scene: Scene) -> None:
        await scene.pilot.press("question_mark")
        await scene.sees("Any key closes this.")
        await scene.pilot.press("1")
        await scene.until("the help to go", lambda: len(scene.app.screen_stack) == 1)
        assert scene.source.toggled == []

    play(act)


@pytest.mark.parametrize(
    ("opens", "said", "keys"),
    [("question_mark", "Any key closes this.", "ab"), ("q", "End the servers all the same?", "nn")],
)
def test_keys_that_come_at_once_close_it_once(opens: str, said: str, keys: str) -> None:
    """They are in its queue before it has acted on the first."""

    async def act(scene: Scene) -> None:
        await scene.hears(snapshot(clients=2), "2 clients served")
        await scene.pilot.press(opens)
        await scene.sees(said)
        for key in keys:
            scene.app.post_message(Key(key, key))
        await scene.until("it to go", lambda: len(scene.app.screen_stack) == 1)
        await scene.pilot.pause()
        assert scene.app.is_running
        assert len(scene.app.screen_stack) == 1

    play(act)


def test_it_follows_the_size_of_the_terminal() -> None:
    async def act(scene: Scene) -> None:
        why = "killed by SIGKILL, long before its time"
        await scene.hears(with_worker(snapshot(WorkerState.DEAD), 1, reason=why), "Dead: killed b…")
        assert f"1 Dead: {why}" in scene.text  # the marked one
        await scene.pilot.resize_terminal(200, 60)
        await scene.sees(f"Dead: {why}")
        assert len(scene.text.split("\n")) == 60
        await scene.pilot.resize_terminal(80, 24)
        await scene.sees("Dead: killed b…")
        assert {len(line) for line in scene.text.split("\n")} == {80}
        await scene.pilot.resize_terminal(20, 5)
        await scene.sees("msd · 127.0")

    play(act)


def test_what_is_drawn_before_all_parts_have_the_new_size_is_drawn_again() -> None:
    async def act(scene: Scene) -> None:
        dead = with_worker(snapshot(WorkerState.DEAD), 1, reason="killed by SIGKILL, long before its time")
        await scene.hears(dead, "Dead: killed by SIGKILL, long")
        await scene.sees("›○")
        await scene.until("it to be quiet", lambda: not scene.app._is_stale)
        scene.app.post_message(Resize(Size(80, 24), Size(80, 24)))
        while scene.app.size.width != 80:
            await asyncio.sleep(0)
        assert scene.app.query_one("#workers").size.width == 200
        # The timer's turn may come now: the parts are as wide as they were.
        scene.app._turn()
        await scene.sees("Dead: killed b…")

    play(act, size=(200, 60))


def test_where_a_scroll_bar_comes_events_are_broken_for_the_room_that_is_left() -> None:
    async def act(scene: Scene) -> None:
        # As wide as all of it, the time of day before it included.
        scene.source.waiting += [Note("x" * (80 - 11))] * 30
        await scene.sees("\n" + " " * 11 + "x ")

    play(act)


def test_what_must_be_seen_at_80_by_24() -> None:
    async def act(scene: Scene) -> None:
        lines = scene.text.split("\n")
        assert [str(port) in scene.text for port in PORTS] == [True] * 4
        assert "msd download -a 127.0.0.1 -p 21018 27215 35416 19222 39223" in scene.text
        assert lines[-1].startswith("1…9 shut down/wake up")
        assert lines[-1].rstrip().endswith("? help")

    play(act)


def test_with_64_workers_the_marked_one_and_the_footer_are_seen() -> None:
    async def act(scene: Scene) -> None:
        await scene.hears(snapshot(*[WorkerState.AWAKE] * 64), "64 of 64 alive")
        await scene.pilot.press("up")
        await scene.sees("›● 64")
        await scene.sees("? help")
        await scene.pilot.press("enter")
        assert scene.source.toggled == [64]

    play(act)


def test_a_worker_that_dies_is_seen_with_the_reason_and_comes_back() -> None:
    async def act(scene: Scene) -> None:
        dead = with_worker(snapshot(WorkerState.AWAKE, WorkerState.DEAD), 2, reason="killed by SIGKILL")
        await scene.hears(dead, "! worker 2 died: killed by SIGKILL")
        assert "1 of 2 alive" in scene.text
        assert "○  2 27215 Dead: killed b…" in scene.text
        await scene.hears(snapshot(WorkerState.AWAKE, WorkerState.STARTING), "worker 2 is being started again")
        await scene.hears(snapshot(WorkerState.AWAKE, WorkerState.AWAKE), "worker 2 is alive")

    play(act)


def test_server_5_that_is_gone_is_said_plainly_and_no_more_when_it_is_back() -> None:
    async def act(scene: Scene) -> None:
        await scene.hears(Lost("server 5 at 127.0.0.1:39223 does not answer"), "! SERVER 5 DOES NOT ANSWER since ")
        assert scene.text.count("Alive? ") == 5  # the marked one twice
        assert "server 5 lost" in scene.text
        await scene.hears(snapshot(epoch=2), "server 5 was started again")
        await scene.until("the alarm to go", lambda: "DOES NOT ANSWER" not in scene.text)
        assert "Alive?" not in scene.text

    play(act)


def test_server_5_that_lets_nobody_in_any_more_is_not_called_lost() -> None:
    async def act(scene: Scene) -> None:
        why = "server 5 at 127.0.0.1:39223 does not admit this key"
        await scene.hears(Lost(why, refused=True), "! SERVER 5 REFUSES THIS CONSOLE since ")
        assert f"server 5 refuses: {why}" in " ".join(scene.text.split())
        assert "DOES NOT ANSWER" not in scene.text
        assert "lost" not in scene.text

    play(act)


def test_what_server_5_remembers_of_the_time_before_is_shown() -> None:
    async def act(scene: Scene) -> None:
        before = [LoggedEvent(time=3.0, text="worker 4 woke up", bad=False), LoggedEvent(time=2.0, text="x", bad=True)]
        report = StatusReport(rid=1, status=snapshot(), events=before, rates=[[1e6], [], [], []])
        await scene.hears(report, "worker 4 woke up")
        await scene.hears(report, "worker 4 woke up")
        assert scene.text.count("worker 4 woke up") == 1
        assert "█" in scene.text

    play(act)


def test_q_does_not_ask_for_the_clients_of_servers_that_are_gone() -> None:
    async def act(scene: Scene) -> None:
        await scene.hears(snapshot(clients=2), "2 clients served")
        await scene.hears(Lost("gone"), "SERVER 5 DOES NOT ANSWER")
        await scene.pilot.press("q")

    assert play(act).return_value == 0


def test_an_order_that_was_not_carried_out_is_seen() -> None:
    async def act(scene: Scene) -> None:
        await scene.hears(Note("not done: orders are an operator's to give"), "! not done: orders are an operator's")

    play(act)


def test_what_others_say_is_shown_as_it_is() -> None:
    async def act(scene: Scene) -> None:
        for text in ("[bold]x[/bold]", "[/]", "$error", "[link=a]"):
            await scene.hears(with_worker(snapshot(WorkerState.DEAD), 1, reason=text), f"worker 1 died: {text}")
            await scene.hears(snapshot(), "4 of 4 alive")

    play(act, size=(160, 24))


def test_without_news_nothing_is_drawn() -> None:
    async def act(scene: Scene) -> None:
        await scene.sees("›")
        await scene.pilot.pause(2 * REDRAW)
        before = scene.app.draws
        await scene.pilot.pause(3 * REDRAW)
        assert scene.app.draws == before

    play(act)


def test_however_much_comes_it_is_drawn_at_most_10_times_a_second() -> None:
    async def act(scene: Scene) -> None:
        scene.source.flood = lambda: [
            with_worker(snapshot(WorkerState.AWAKE if n % 2 else WorkerState.ASLEEP), 1, bytes_sent=n)
            for n in range(100)
        ]
        await scene.pilot.pause(2 * REDRAW)
        began, draws, frames = time.monotonic(), scene.app.draws, scene.app.frames
        await scene.pilot.pause(1.0)
        seconds = time.monotonic() - began
        assert 0 < scene.app.draws - draws <= 10 * seconds + 1
        assert 0 < scene.app.frames - frames <= 10 * seconds + 1

    play(act)
