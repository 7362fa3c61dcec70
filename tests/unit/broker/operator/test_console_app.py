"""Textual's pilot drives the console, which receives its events from a fake feed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace
from textual.events import Key
from textual.pilot import Pilot

from msd.broker.operator import console_app
from msd.broker.operator.console_app import HOSTS_S, REDRAW_INTERVAL_S, ConsoleApp
from msd.broker.operator.status_feed import FeedEvent, OrderFailed, Server5Lost
from msd.wire.config.invitations import Invitation
from msd.wire.config.links import Link
from msd.wire.config.servers import Servers
from msd.wire.errors import DiskError
from msd.wire.net.endpoints import Endpoint
from msd.wire.protocol.messages import LoggedEvent, Status, StatusReport
from msd.wire.protocol.states import WorkerState
from tests.processes import TIMEOUT
from tests.unit.broker.views.test_client_rows import download
from tests.unit.snapshots import PORTS, report, snapshot, with_worker

SERVERS = Servers(Endpoint("127.0.0.1", 39223), {}, pinned=False)


class FakeFeed:
    """Returns the events that the test has queued, and records the toggled workers."""

    def __init__(self) -> None:
        self.queued: list[FeedEvent] = []
        self.toggled: list[int] = []
        self.more_events: Callable[[], list[FeedEvent]] = list

    def poll(self) -> list[FeedEvent]:
        queued, self.queued = self.queued, []
        return queued + self.more_events()

    def toggle(self, number: int) -> None:
        self.toggled.append(number)

    def close(self) -> None:
        pass


class CountingConsole(ConsoleApp):
    """Counts the frames written to the terminal."""

    frames = 0

    def _display(self, *arguments: Any) -> None:
        self.frames += 1
        super()._display(*arguments)


class ConsoleDriver:
    """A running console and its feed."""

    def __init__(self, app: CountingConsole, feed: FakeFeed, pilot: Pilot[int]) -> None:
        self.app = app
        self.feed = feed
        self.pilot = pilot

    @property
    def text(self) -> str:
        return "\n".join(strip.text for strip in self.app.screen._compositor.render_strips())

    async def wait_until(self, description: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f"waited for {description}:\n{self.text}"
            await self.pilot.pause(0.01)

    async def expect(self, text: str) -> None:
        await self.wait_until(repr(text), lambda: text in self.text)

    async def receive(self, event: FeedEvent, text: str) -> None:
        """Adds an event to the feed and waits until the console shows ``text``."""
        self.feed.queued.append(event)
        await self.expect(text)


def run_console(
    steps: Callable[[ConsoleDriver], Awaitable[None]],
    *,
    owns_servers: bool = True,
    size: tuple[int, int] = (80, 24),
    invite: Callable[[], Invitation] | None = None,
) -> CountingConsole:
    """Runs a console that shows four awake workers, and calls ``steps``. Returns the console after it has exited."""
    feed = FakeFeed()
    app = CountingConsole(feed, SERVERS, owns_servers=owns_servers, invite=invite)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            driver = ConsoleDriver(app, feed, pilot)
            await driver.receive(snapshot(), "4 of 4 alive")
            await steps(driver)

    asyncio.run(run())
    return app


def test_y_copies_and_shows_the_link_for_a_client() -> None:
    invitation = Invitation(Link(Endpoint("192.0.2.7", 39223), "film", bytes(32), bytes(16)), "serve-1", math.inf)
    failures = [DiskError("keys: no space left")]

    def invite() -> Invitation:
        if failures:
            raise failures.pop()
        return invitation

    async def steps(driver: ConsoleDriver) -> None:
        await driver.pilot.press("y")
        await driver.expect("! no link for a client: keys: no space left")
        await driver.pilot.press("y")
        await driver.expect("msd://192.0.2.7/film#")
        assert driver.app.clipboard == invitation.link.text
        await driver.pilot.press("y")
        await driver.wait_until("the link to disappear", lambda: "msd://" not in driver.text)
        await driver.expect("(y copies a link)")

    run_console(steps, invite=invite)


def test_without_a_link_y_copies_the_command_for_a_client() -> None:
    command = "msd download -a 127.0.0.1 -p 21018 27215 35416 19222 39223"

    async def steps(driver: ConsoleDriver) -> None:
        await driver.pilot.press("y")
        await driver.expect("Command for a client on this machine, copied if the terminal allows that")
        assert driver.app.clipboard == command
        assert "link" not in driver.text
        await driver.pilot.press("y")
        await driver.wait_until("the dialog to close", lambda: len(driver.app.screen_stack) == 1)

    run_console(steps)


def test_a_digit_toggles_the_worker_with_that_number_if_it_exists() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.pilot.press("2", "0", "5", "9", "4")
        assert driver.feed.toggled == [2, 4]
        await driver.expect("! there is no worker 5: the workers are numbered 1 to 4")
        await driver.expect("! there is no worker 9: the workers are numbered 1 to 4")
        await driver.expect("you toggled worker 4")
        status = snapshot(WorkerState.AWAKE, WorkerState.ASLEEP)
        await driver.receive(report(status, "worker 2 fell asleep"), "worker 2 fell asleep")
        assert "○    2 Asleep 27215" in driver.text

    run_console(steps)


def test_a_digit_is_the_number_of_a_worker_and_not_its_row() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        joined = {"name": "attic", "host": "10.0.0.7", "endpoint": "tcp://10.0.0.7:21018"}
        await driver.receive(with_worker(snapshot(), 4, number=7, **joined), "attic")
        await driver.pilot.press("4", "7")
        await driver.expect("! there is no worker 4: the workers are numbered 1 to 3, 7")
        await driver.expect("you toggled worker 7 (attic)")
        assert driver.feed.toggled == [7]

    run_console(steps)


def test_a_worker_that_joins_does_not_change_the_selection() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        status = snapshot()
        await driver.receive(replace(snapshot(), workers=[status.workers[0], status.workers[3]]), "2 of 2 alive")
        await driver.pilot.press("down")
        await driver.expect("›●    4")
        await driver.receive(snapshot(), "4 of 4 alive")
        await driver.expect("›●    4")
        await driver.pilot.press("t")
        await driver.expect("you toggled worker 4")
        assert driver.feed.toggled == [4]
        await driver.receive(replace(snapshot(), workers=status.workers[:2]), "2 of 2 alive")
        await driver.expect("›●    1")

    run_console(steps)


def test_without_workers_the_console_shows_how_to_start_one() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(snapshot(workers=[], catalogue=b"", files=0), "no workers yet")
        await driver.expect("Command for a worker on this machine")
        await driver.expect("msd worker --join 127.0.0.1:39223 PATH")
        await driver.pilot.press("1", "t", "enter")
        await driver.expect("! t toggles one worker: select its row first")
        await driver.expect("! there is no worker 1: no worker has joined yet")
        assert driver.feed.toggled == []

    run_console(steps)


def test_arrows_and_letters_select_a_worker_and_t_toggles_it() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.expect("›●    1")
        await driver.pilot.press("down", "j")
        await driver.expect("›●    3")
        await driver.pilot.press("t", "k", "t", "up", "up", "t")
        assert driver.feed.toggled == [3, 2, 1]

    run_console(steps)


def test_enter_says_why_a_worker_does_not_serve_and_toggles_nothing() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        failed = with_worker(snapshot(WorkerState.AWAKE, WorkerState.FAILED), 2, reason="exited with code 1")
        await driver.receive(failed, "        exited with code 1")
        await driver.pilot.press("down", "enter")
        await driver.expect("Worker 2: Failed: exited with code 1")
        assert "It does not serve: its process has ended too often." in driver.text
        await driver.pilot.press("t")
        await driver.wait_until("the dialog to close", lambda: len(driver.app.screen_stack) == 1)
        assert driver.feed.toggled == []

    run_console(steps)


def test_the_details_follow_the_state_of_their_row() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.pilot.press("down", "enter")
        await driver.expect("Worker 2: Alive")
        failed = with_worker(snapshot(WorkerState.AWAKE, WorkerState.FAILED), 2, reason="exited with code 1")
        await driver.receive(failed, "Worker 2: Failed: exited with code 1")
        await driver.expect("It does not serve: its process has ended too often.")
        await driver.receive(snapshot(WorkerState.AWAKE), "1 of 1 alive")
        assert "Worker 2: Failed: exited with code 1" in driver.text, "its row has gone"

    run_console(steps)


def test_64_workers_scroll_on_a_terminal_of_80_by_24() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        status = snapshot(*[WorkerState.AWAKE] * 4)
        workers = [replace(status.workers[0], number=n, endpoint=f"tcp://127.0.0.1:{19000 + n}") for n in range(1, 65)]
        await driver.receive(replace(status, workers=workers), "64 of 64 alive")
        await driver.expect("●    9 Alive 19009")
        await driver.expect("rows 1 to 11 of 64")
        await driver.expect("Command for a client")
        await driver.pilot.press("end", "t")
        await driver.expect("›●   64 Alive 19064")
        await driver.expect("rows 54 to 64 of 64")
        assert driver.feed.toggled == [64]
        await driver.pilot.press("home", "pagedown")
        await driver.expect("›●   11 Alive 19011")

    run_console(steps)


def test_tab_and_the_mouse_focus_the_other_panels() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(report(snapshot(), downloads=[download(number=n, client=f"c{n}") for n in range(3)]), "c2")
        await driver.expect("━Workers")
        await driver.pilot.press("tab", "down")
        await driver.expect("━Clients")
        await driver.expect("›c1")
        await driver.pilot.press("enter")
        await driver.expect("Client c1 at 192.0.2.7")
        await driver.pilot.press("x")
        await driver.wait_until("the dialog to close", lambda: len(driver.app.screen_stack) == 1)
        lines = driver.text.split("\n")
        (y,) = (number for number, line in enumerate(lines) if "35416" in line and "Alive" in line)
        await driver.pilot.click(offset=(10, y))
        await driver.expect("━Workers")
        await driver.expect("›●    3")
        await driver.pilot.press("t")
        assert driver.feed.toggled == [3]

    run_console(steps)


def test_a_filter_applies_to_the_focused_panel_until_it_is_removed() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(
            report(snapshot(), "worker 1 woke up", "worker 12 woke up", "sharing"), "worker 12 woke up"
        )
        await driver.pilot.press("shift+tab", "slash", *"worker", "space", "1")
        await driver.wait_until("the filter", lambda: "sharing" not in driver.text)
        assert "Events: newest first, filter: worker 1" in driver.text
        await driver.pilot.press("enter")
        await driver.expect("? help")
        assert driver.feed.toggled == []
        await driver.pilot.press("slash", "escape")
        await driver.expect("sharing")
        await driver.pilot.press("slash", *"nothing", "enter")
        await driver.expect("no event matches")

    run_console(steps)


def test_a_click_on_another_panel_closes_the_line_of_the_filter() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(report(snapshot(), "worker 1 woke up", "sharing"), "sharing")
        await driver.pilot.press("shift+tab", "slash", *"woke")
        await driver.wait_until("the filter", lambda: "sharing" not in driver.text)
        assert "? help" not in driver.text, "the filter replaces the line of keys"
        assert "msd download" in driver.text, "no other line is covered"
        (y,) = (number for number, line in enumerate(driver.text.split("\n")) if "35416" in line and "Alive" in line)
        await driver.pilot.click(offset=(10, y))
        await driver.expect("━Workers")
        await driver.expect("? help")
        assert "filter: woke" in driver.text
        await driver.pilot.press("slash", *"alive", "enter", "t")
        await driver.wait_until("the order", lambda: driver.feed.toggled == [3])

    run_console(steps)


def test_events_are_limited_to_failures_and_to_the_selected_worker() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        events = [
            LoggedEvent(seq=3, time=3.0, text="worker 2 died", is_failure=True, worker=2),
            LoggedEvent(seq=2, time=2.0, text="worker 2 woke up", is_failure=False, worker=2),
            LoggedEvent(seq=1, time=1.0, text="sharing 3 files", is_failure=False),
        ]
        await driver.receive(StatusReport(rid=1, status=snapshot(), time=3.0, events=events), "sharing 3 files")
        await driver.pilot.press("l")
        await driver.wait_until("the limit", lambda: "woke up" not in driver.text)
        await driver.expect("Events: failures only")
        await driver.pilot.press("l", "down", "w")
        await driver.expect("Events: worker 2 only")
        assert "woke up" in driver.text
        assert "sharing" not in driver.text
        await driver.pilot.press("w")
        await driver.expect("sharing 3 files")

    run_console(steps)


def test_s_sorts_the_rows_of_the_focused_panel() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        downloads = [download(number=1, client="fast", received=1), download(number=2, client="big", rate=1.0)]
        await driver.receive(report(snapshot(), downloads=downloads), "fastest first")
        await driver.pilot.press("tab", "s")
        await driver.expect("most bytes first")
        assert driver.text.index("big ") < driver.text.index("fast ")

    run_console(steps)


def test_keys_typed_in_one_burst_reach_the_panel_that_has_the_focus_by_then() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        downloads = [download(number=1, client="fast", received=1), download(number=2, client="big", rate=1.0)]
        await driver.receive(report(snapshot(), downloads=downloads), "fastest first")
        for key in ("tab", "s"):
            driver.app.post_message(Key(key, None))
        await driver.expect("most bytes first")
        assert "slowest first" not in driver.text

    run_console(steps)


def test_the_selection_stays_when_a_worker_changes_its_state() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.pilot.press("down")
        await driver.receive(
            snapshot(WorkerState.AWAKE, WorkerState.SILENT, WorkerState.AWAKE, WorkerState.AWAKE), "Not responding"
        )
        await driver.expect("›○    2")

    run_console(steps)


def test_t_toggles_the_worker_that_was_selected_although_another_one_is_the_slowest_now() -> None:
    def with_rates(*rates: float) -> Status:
        status = snapshot()
        workers = [replace(worker, rate=rate) for worker, rate in zip(status.workers, rates, strict=True)]
        return replace(status, workers=workers)

    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(with_rates(4e6, 3e6, 2e6, 1e6), "977 KiB/s")
        await driver.pilot.press("s")
        await driver.expect("slowest first")
        await driver.expect("›●    4")
        driver.feed.queued.append(with_rates(1e6, 2e6, 3e6, 4e6))
        await driver.expect(" ●    1 Alive")
        await driver.wait_until(
            "the new order", lambda: driver.text.index("    1 Alive") < driver.text.index("    4 Alive")
        )
        await driver.expect("›●    4")
        await driver.pilot.press("t")
        assert driver.feed.toggled == [4]

    run_console(steps)


def test_t_toggles_no_other_worker_if_the_selected_one_has_just_gone() -> None:
    """The new contents are there, and the screen does not show them yet."""

    async def steps(driver: ConsoleDriver) -> None:
        await driver.pilot.press("down", "down", "down")
        await driver.expect("›●    4")
        driver.feed.queued.append(snapshot(*[WorkerState.AWAKE] * 3))
        driver.app._tick()
        driver.app.action_toggle_selected()
        assert driver.feed.toggled == []
        await driver.expect("! there is no worker 4: the workers are numbered 1 to 3")
        await driver.expect("›●    1")
        await driver.pilot.press("t")
        assert driver.feed.toggled == [1]

    run_console(steps)


def test_the_addresses_of_this_machine_are_not_read_at_each_redraw(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def read(host: str) -> Sequence[str]:
        reads.append(host)
        return [f"192.0.2.{len(reads)}"]

    monkeypatch.setattr(console_app, "hosts_for_others", read)

    async def steps(driver: ConsoleDriver) -> None:
        now = 1000.0
        driver.app._clock = lambda: now
        await driver.receive(snapshot(clients=1), "1 client served")
        known = len(reads)
        for clients in range(2, 6):
            await driver.receive(snapshot(clients=clients), f"{clients} clients served")
        assert len(reads) == known
        now += HOSTS_S
        await driver.receive(snapshot(clients=9), "9 clients served")
        assert len(reads) == known + 1
        now -= 2 * HOSTS_S
        await driver.receive(snapshot(clients=8), "8 clients served")
        assert len(reads) == known + 2, "the clock was set back"

    run_console(steps)


def test_without_clients_q_quits() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.pilot.press("q")

    assert run_console(steps).return_value == 0


def test_with_clients_q_asks_and_only_y_quits() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(snapshot(clients=2), "2 clients served")
        for key in ("n", "escape", "q"):
            await driver.pilot.press("q")
            await driver.expect("2 clients were connected in the last 30 s. Stop the servers anyway?")
            await driver.pilot.press("1")  # must not reach the console behind the dialog
            await driver.pilot.press(key)
            await driver.wait_until("the question to close", lambda: len(driver.app.screen_stack) == 1)
        assert driver.feed.toggled == []
        assert driver.app.is_running
        await driver.pilot.press("q", "y")

    assert run_console(steps).return_value == 0


def test_q_leaves_a_console_that_does_not_own_the_servers_without_asking() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(snapshot(clients=2), "2 clients served")
        await driver.expect("q leave")
        await driver.pilot.press("q")

    assert run_console(steps, owns_servers=False).return_value == 0


def test_ctrl_c_ends_the_console_at_once_even_if_a_dialog_is_open() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(snapshot(clients=2), "2 clients served")
        await driver.pilot.press("q")
        await driver.expect("Stop the servers anyway?")
        await driver.pilot.press("ctrl+c")

    assert run_console(steps).return_value == 130


def test_any_key_closes_the_help() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.pilot.press("question_mark")
        await driver.expect("Press any key to close.")
        await driver.pilot.press("1")
        await driver.wait_until("the help to close", lambda: len(driver.app.screen_stack) == 1)
        assert driver.feed.toggled == []

    run_console(steps)


@pytest.mark.parametrize(
    ("opening_key", "text", "closing_keys"),
    [("question_mark", "Press any key to close.", "ab"), ("q", "Stop the servers anyway?", "nn")],
)
def test_two_keys_in_quick_succession_close_only_the_dialog(opening_key: str, text: str, closing_keys: str) -> None:
    """Both keys are queued before the dialog has handled the first one."""

    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(snapshot(clients=2), "2 clients served")
        await driver.pilot.press(opening_key)
        await driver.expect(text)
        for key in closing_keys:
            driver.app.post_message(Key(key, key))
        await driver.wait_until("the dialog to close", lambda: len(driver.app.screen_stack) == 1)
        await driver.pilot.pause()
        assert driver.app.is_running
        assert len(driver.app.screen_stack) == 1

    run_console(steps)


def test_the_console_adapts_to_the_size_of_the_terminal() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        reason = "killed by SIGKILL, because memory ran out"
        await driver.receive(with_worker(snapshot(WorkerState.DEAD), 1, reason=reason), f"        {reason}")
        await driver.pilot.resize_terminal(200, 60)
        await driver.expect(f"Restarting: {reason}")
        assert len(driver.text.split("\n")) == 60
        await driver.pilot.resize_terminal(80, 24)
        await driver.wait_until("80 columns", lambda: {len(line) for line in driver.text.split("\n")} == {80})
        await driver.expect(f"        {reason}")
        await driver.pilot.resize_terminal(20, 5)
        await driver.expect("0 of 1 alive")
        await driver.expect("Restarting")

    run_console(steps)


def test_ports_client_command_and_keys_are_visible_at_80_by_24() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.wait_until("all ports", lambda: all(str(port) in driver.text for port in PORTS))
        lines = driver.text.split("\n")
        assert "msd download -a 127.0.0.1 -p 21018 27215 35416 19222 39223" in driver.text
        assert lines[-1].startswith("1…9 toggle")
        assert lines[-1].rstrip().endswith("? help")

    run_console(steps)


def test_on_a_narrow_terminal_no_column_and_no_key_is_cut_off() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        lines = driver.text.split("\n")
        assert next(line for line in lines if " Port " in line).split()[-1] == "Errors"
        assert lines[-1].rstrip().endswith("? help")

    run_console(steps, size=(70, 20))


def test_with_64_workers_the_selected_one_and_the_footer_are_visible() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(snapshot(*[WorkerState.AWAKE] * 64), "64 of 64 alive")
        await driver.pilot.press("end")
        await driver.expect("›●   64")
        await driver.expect("? help")
        await driver.pilot.press("t")
        assert driver.feed.toggled == [64]

    run_console(steps)


def test_a_dead_worker_is_shown_with_the_reason_until_it_is_restarted() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        dead = with_worker(snapshot(WorkerState.AWAKE, WorkerState.DEAD), 2, reason="killed by SIGKILL")
        text = "worker 2 died: killed by SIGKILL"
        await driver.receive(report(dead, text, is_failure=True), f"! {text}")
        assert "1 of 2 alive" in driver.text
        assert "○    2 Restarting 27215" in driver.text
        assert "        killed by SIGKILL " in driver.text
        status = snapshot(WorkerState.AWAKE, WorkerState.AWAKE)
        await driver.receive(report(status, text, "worker 2 is restarting"), "worker 2 is restarting")
        assert "2 of 2 alive" in driver.text

    run_console(steps)


def test_an_alarm_is_shown_until_server_5_answers_again() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(
            Server5Lost("server 5 at 127.0.0.1:39223 does not answer"), "! SERVER 5 HAS NOT ANSWERED since "
        )
        assert driver.text.count("Alive? ") == 4
        assert "server 5 lost" in driver.text
        await driver.receive(snapshot(epoch=2), "server 5 restarted")
        await driver.wait_until("the alarm to disappear", lambda: "HAS NOT ANSWERED" not in driver.text)
        assert "Alive?" not in driver.text

    run_console(steps)


def test_a_refused_console_is_not_reported_as_lost() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        reason = "server 5 at 127.0.0.1:39223 does not admit this key"
        await driver.receive(Server5Lost(reason, refused=True), "! SERVER 5 HAS REFUSED THIS CONSOLE since ")
        assert f"server 5 refuses this operator: {reason}" in " ".join(driver.text.split())
        assert "HAS NOT ANSWERED" not in driver.text
        assert "lost" not in driver.text

    run_console(steps)


def test_events_from_before_the_console_started_are_shown() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        earlier = report(snapshot(), "x", "worker 4 woke up", rates=[[1e6], [], [], []])
        await driver.receive(earlier, "worker 4 woke up")
        await driver.receive(earlier, "worker 4 woke up")
        assert driver.text.count("worker 4 woke up") == 1
        assert "█" in driver.text

    run_console(steps, size=(100, 24))


def test_q_does_not_ask_while_server_5_does_not_answer() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(snapshot(clients=2), "2 clients served")
        await driver.receive(Server5Lost("gone"), "SERVER 5 HAS NOT ANSWERED")
        await driver.pilot.press("q")

    assert run_console(steps).return_value == 0


def test_a_failed_order_is_shown() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.receive(
            OrderFailed("order rejected: only operators may give orders"),
            "! order rejected: only operators may give orders",
        )

    run_console(steps)


def test_markup_in_messages_is_shown_literally() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        for seq, text in enumerate(("[bold]x[/bold]", "[/]", "$error", "[link=a]")):
            status = with_worker(snapshot(WorkerState.DEAD), 1, reason=text)
            await driver.receive(report(status, *["x"] * seq, f"worker 1 died: {text}"), f"worker 1 died: {text}")
            await driver.expect(f"Restarting: {text} ")
            await driver.receive(snapshot(), "4 of 4 alive")

    run_console(steps, size=(160, 24))


def test_without_events_nothing_is_drawn() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        await driver.expect("›")
        await driver.pilot.pause(2 * REDRAW_INTERVAL_S)
        draw_count = driver.app.draw_count
        await driver.pilot.pause(3 * REDRAW_INTERVAL_S)
        assert driver.app.draw_count == draw_count

    run_console(steps)


def test_a_flood_of_events_is_drawn_at_most_10_times_a_second() -> None:
    async def steps(driver: ConsoleDriver) -> None:
        totals = count(1)
        driver.feed.more_events = lambda: [
            with_worker(snapshot(WorkerState.AWAKE if n % 2 else WorkerState.ASLEEP), 1, bytes_sent=next(totals) << 20)
            for n in range(100)
        ]
        await driver.pilot.pause(2 * REDRAW_INTERVAL_S)
        started_at, draw_count, frames = time.monotonic(), driver.app.draw_count, driver.app.frames
        await driver.pilot.pause(1.0)
        seconds = time.monotonic() - started_at
        assert 0 < driver.app.draw_count - draw_count <= 10 * seconds + 1
        assert 0 < driver.app.frames - frames <= 10 * seconds + 1

    run_console(steps)
