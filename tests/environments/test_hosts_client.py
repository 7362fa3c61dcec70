"""Clients of hosts in a network of namespaces: one host that they cannot reach, and a broker that is away."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from msd.wire.security.keys import Role
from tests.environments.recipes import hosts, run_in
from tests.hostile_clients import Keyring
from tests.hosts import Broker
from tests.processes import MIB, Source, files_equal, wait_for

pytestmark = pytest.mark.usefixtures("runtime_folder")


@pytest.mark.soak
def test_a_host_that_only_the_client_cannot_reach_is_named_and_a_new_download_needs_no_broker(
    source: Source, tmp_path: Path
) -> None:
    """
    1. Server 5 reaches two hosts, the client only one of them: the other one is named with what came back.
    2. The machine of the broker is cut off. A new download has found its file within 2 s, with the keys of the workers.
    """
    keys = Keyring(tmp_path / "keys")
    keys.create_key("hosts", Role.WORKER)
    keys.create_key("alice", Role.CLIENT)
    path = source(16 * MIB)
    with hosts(4) as machines, ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path / "b", host="192.0.2.1", keys=keys, wrapper=machines[0]))
        for number, name in ((1, "attic"), (2, "cellar")):
            flags = (str(path), "--listen", "21018", "--rate", "4MiB")
            stack.enter_context(broker.worker(name, *flags, owner="hosts", wrapper=machines[number]))
            broker.wait_for_states(**{name: "awake"})
        client = machines[-1]
        run_in(client, "ip rule add to 192.0.2.3 prohibit")
        with broker.download("-o", "copy", owner="alice", wrapper=client, cwd=tmp_path) as download:
            unreachable = wait_for(
                "a host that is named",
                lambda: [event for event in download.events_of("worker") if event["state"] == "unreachable"],
            )
            done = download.wait_until_done()
        assert [(event["name"], event["place"]) for event in unreachable] == [("2", "cellar, 192.0.2.3")]
        assert unreachable[0]["detail"].startswith("192.0.2.3:21018 cannot be reached")
        assert files_equal(path, tmp_path / "copy")
        assert done["workers"]["1"]["bytes"] == path.stat().st_size
        run_in(client, "ip rule delete to 192.0.2.3 prohibit")
        run_in(machines[0], "ip link set e0 down")
        began = time.monotonic()
        with broker.download("-o", "copy", "--force", owner="alice", wrapper=client, cwd=tmp_path) as download:
            (started,) = wait_for("the start of a download", lambda: download.events_of("start"))
            download.signal(signal.SIGINT)
            assert download.wait() == 130
        assert started["at"] - began < 3.0, "one more second, because this machine may be busy"
