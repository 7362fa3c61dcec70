"""The table of what can come back from the servers' addresses, and what the user reads."""

from __future__ import annotations

import pytest

from msd.wire.net.diagnosis import Contact, Outcome, describe, diagnose, refused_error
from msd.wire.net.endpoints import Endpoint

SERVER_5 = Endpoint("10.0.0.1", 39223)
PORTS = (21018, 21019, 27215, 35416)


def contacts(server5: Outcome, workers: Outcome = Outcome.UNKNOWN, count: int = 4, detail: str = "") -> list[Contact]:
    addresses = [Endpoint("10.0.0.1", port) for port in PORTS[:count]]
    return [
        Contact("server 5", SERVER_5, server5, detail),
        *(Contact(f"worker {number}", address, workers, detail) for number, address in enumerate(addresses, 1)),
    ]


@pytest.mark.parametrize(
    ("outcome", "detail", "expected"),
    [
        (Outcome.REFUSED, "", "refuses the connection: is msd serve running there?"),
        (Outcome.NO_ANSWER, "", "does not answer: check the address, and that no firewall drops the connection"),
        (
            Outcome.UNREACHABLE,
            "no route to host",
            "cannot be reached (no route to host): check the address and",
        ),
        (Outcome.SILENT, "", "accepts the connection, but sends nothing: its process is stopped, or it is not msd"),
        (Outcome.CLOSED, "", "accepts the connection and closes it at once: check the port, and what is between"),
        (
            Outcome.NOT_MSD,
            "SSH-2.0-x",
            "answers, but is not msd (it sends 'SSH-2.0-x'): check the address and the p",
        ),
        (Outcome.NOT_MSD, "", "answers, but is not msd: check the address and the port"),
        (Outcome.NO_REPLY, "", "accepts ZeroMQ connections, but sends no reply of msd: check the order of the ports"),
        (
            Outcome.KEY_FOR_WORKERS,
            "",
            "admits this key for msd worker only: use another key, or ask the operator to run msd keys admit with"
            " --role client",
        ),
        (Outcome.KEY_NOT_ADMITTED, "", "does not admit this key: ask the operator to run msd keys admit"),
        (
            Outcome.KEY_REQUIRED,
            "",
            "requires a key: give the server key that its msd serve prints, or its config.toml",
        ),
        (Outcome.NO_KEYS, "", "does not use keys: leave out the server key, also in config.toml"),
        (Outcome.WRONG_SERVER_KEY, "", "does not have this server key: compare it with the key that msd serve prints"),
        (Outcome.VERSION, "7", "uses protocol version 7, but this side uses version 3: update the older side"),
        (Outcome.UNKNOWN, "", "does not answer: is msd serve running there?"),
    ],
)
def test_each_outcome_has_a_statement_and_an_advice(outcome: Outcome, detail: str, expected: str) -> None:
    (server5,) = contacts(outcome, count=0, detail=detail)
    text = diagnose([server5], 3)
    assert text.startswith(f"server 5 at 10.0.0.1:39223 {expected}")
    both = diagnose([server5, Contact("worker 1", SERVER_5, outcome, detail)], 3)
    assert both.startswith("server 5 at 10.0.0.1:39223 and worker 1 at 10.0.0.1:39223 ")
    # The verb is a plural, and the advice is the same.
    assert outcome is Outcome.UNREACHABLE or text.split()[4] != both.split()[9]
    assert both.endswith(text.partition(": ")[2])


@pytest.mark.parametrize(
    ("outcome", "arguments"), [(Outcome.KEY_REQUIRED, ("server_key", "config")), (Outcome.KEY_NOT_ADMITTED, ())]
)
def test_a_refusal_without_a_key_names_the_arguments_for_one(outcome: Outcome, arguments: tuple[str, ...]) -> None:
    error = refused_error(contacts(outcome), 3)
    assert (str(error), error.arguments) == (diagnose(contacts(outcome), 3), arguments)


def test_every_outcome_but_an_answer_has_an_advice_of_its_own() -> None:
    advice = {diagnose(contacts(outcome, count=0, detail="7"), 3).partition(": ")[2] for outcome in Outcome}
    # Without a result, nothing is known but that it is best to look for msd serve.
    assert len(advice) == len(Outcome) - 1
    assert diagnose(contacts(Outcome.ANSWERS, count=0), 3) == "server 5 at 10.0.0.1:39223 answers"


def test_this_machine_may_serve_at_another_address_than_the_loopback_one() -> None:
    text = diagnose([Contact("server 5", Endpoint("127.0.0.1", 39223), Outcome.REFUSED)], 3)
    assert text.endswith("is msd serve running there? If it listens at another address, give that one")


def test_addresses_with_the_same_outcome_share_one_statement() -> None:
    assert diagnose(contacts(Outcome.REFUSED, Outcome.REFUSED), 3) == (
        "server 5 at 10.0.0.1:39223 and workers 1-4 at 10.0.0.1:21018-21019, 27215, 35416 refuse the connection:"
        " is msd serve running there?"
    )


@pytest.mark.parametrize(
    ("server5", "workers", "expected"),
    [
        (
            Outcome.ANSWERS,
            Outcome.NO_ANSWER,
            "server 5 at 10.0.0.1:39223 answers; "
            "worker 1 at 10.0.0.1:21018 does not answer: check the address, and that no firewall drops the connection",
        ),
        (
            Outcome.REFUSED,
            Outcome.KEY_NOT_ADMITTED,
            "server 5 at 10.0.0.1:39223 refuses the connection; "
            "worker 1 at 10.0.0.1:21018 does not admit this key: ask the operator to run msd keys admit",
        ),
        (
            Outcome.SILENT,
            Outcome.REFUSED,
            "worker 1 at 10.0.0.1:21018 refuses the connection; server 5 at 10.0.0.1:39223 accepts the connection, but"
            " sends nothing: its process is stopped, or it is not msd",
        ),
    ],
)
def test_of_several_outcomes_the_most_specific_one_comes_last_with_its_advice(
    server5: Outcome, workers: Outcome, expected: str
) -> None:
    assert diagnose(contacts(server5, workers, count=1), 3) == expected


def test_workers_of_several_hosts_are_named_by_host() -> None:
    hosts = ("10.0.0.1", "fd00::1", "10.0.0.1")
    named = [Contact(f"worker {n}", Endpoint(host, 9000 + n), Outcome.REFUSED) for n, host in enumerate(hosts, 1)]
    assert describe(named) == "workers 1, 3 at 10.0.0.1:9001, 9003 and worker 2 at [fd00::1]:9002"
    assert describe(named[::-1]) == describe([named[0], named[2], named[1]])


def test_the_control_port_is_named() -> None:
    control = Contact("control port of server 5", Endpoint("10.0.0.1", 39224), Outcome.NO_ANSWER)
    (server5,) = contacts(Outcome.ANSWERS, count=0)
    text = diagnose([control, server5], 3)
    assert text.startswith("server 5 at 10.0.0.1:39223 answers; control port of server 5 at 10.0.0.1:39224 does not ")
