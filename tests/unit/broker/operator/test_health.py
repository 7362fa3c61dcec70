"""When server 5 is ready and when a worker is there: exit code 0, otherwise 1 and the reason."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import zmq

from msd.broker.operator import health
from msd.broker.operator.health import check_broker, check_worker, readiness
from msd.wire.config.servers import Servers
from msd.wire.errors import MsdError, NoAnswerError, NotAllowedError, UsageError
from msd.wire.net.endpoints import Endpoint
from msd.wire.net.ports import hold_port
from msd.wire.protocol.states import WorkerState
from tests.unit.snapshots import snapshot, with_worker

AWAKE, ASLEEP, DEAD = WorkerState.AWAKE, WorkerState.ASLEEP, WorkerState.DEAD


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        yield listening


def address(of: socket.socket) -> str:
    return f"127.0.0.1:{of.getsockname()[1]}"


def test_one_worker_awake_is_enough() -> None:
    assert readiness(snapshot(AWAKE, DEAD, DEAD)) == "server 5 answers; workers: 1 awake, 2 dead"


def test_without_a_worker_awake_the_broker_is_not_ready() -> None:
    with pytest.raises(MsdError, match="no worker is awake: 1 asleep, 1 dead: see msd status") as caught:
        readiness(snapshot(ASLEEP, DEAD))
    assert caught.value.exit_code == 1


def test_an_indexing_is_named() -> None:
    with pytest.raises(MsdError, match=r"2 starting \(indexing: 37 %\)"):
        readiness(snapshot(WorkerState.STARTING, WorkerState.STARTING, indexing=37))


def test_workers_that_the_operator_put_to_sleep_need_no_restart() -> None:
    assert readiness(snapshot(ASLEEP, ASLEEP)) == "server 5 answers; workers: 2 asleep"


def test_a_broker_is_ready_without_the_workers_that_join_it() -> None:
    assert readiness(snapshot(workers=[])) == "server 5 answers; workers: none"
    remote = with_worker(snapshot(WorkerState.LOST), 1, name="attic", host="192.0.2.7")
    assert readiness(remote) == "server 5 answers; workers: 1 lost"


@pytest.mark.parametrize("error", [NoAnswerError("no"), NotAllowedError("no", arguments=("server_key",))])
def test_a_broker_that_gives_no_answer_is_code_1(error: MsdError, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(health, "OperatorClient", refuse)
    with pytest.raises(MsdError, match="no") as caught:
        check_broker(Servers(Endpoint("127.0.0.1", 1), {}, pinned=False))
    assert (caught.value.exit_code, caught.value.arguments) == (1, error.arguments)


@pytest.mark.parametrize("host", ["127.0.0.1:", "0.0.0.0:", "[::]:", ""])
def test_a_worker_that_answers_is_found(host: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        assert check_worker(f"{host}{port}") == f"a worker answers at 127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "*", "::"])
def test_a_worker_that_sleeps_has_reserved_its_port(host: str, listening: socket.socket) -> None:
    where = address(listening)
    listening.close()
    with closing(hold_port(Endpoint(host, int(where.split(":")[1])), "worker")):
        assert check_worker(where) == f"a worker has reserved {where}: it sleeps, or indexes its files"
    with pytest.raises(MsdError, match="refuses the connection") as caught:
        check_worker(where)
    assert caught.value.exit_code == 1


def test_a_process_that_accepts_but_says_nothing_is_no_worker(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TIMEOUT_S", 0.2)
    listening.listen()
    with pytest.raises(MsdError, match="its process is stopped"):
        check_worker(address(listening))


def test_an_unknown_name_is_code_1_and_a_wrong_address_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object) -> None:
        raise NoAnswerError("gave up")

    monkeypatch.setattr(health, "look_up", look_up)
    with pytest.raises(MsdError) as caught:
        check_worker("attic.example:21018")
    assert caught.value.exit_code == 1
    with pytest.raises(UsageError, match="--worker 'attic' is not HOST:PORT"):
        check_worker("attic")
