"""Coverage-guided fuzzing of the codec and of a worker's replies, using atheris. Pytest does not collect this file.

Run it from the repository root:
``pip install atheris && python -m tests.fuzz.fuzz_codec -max_total_time=600 [CORPUS]``

Each input is either decoded as a frame, or used as random data to build a message. Any exception other
than ``ProtocolError`` stops the run, prints a traceback and saves the input to a file.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args


def main() -> None:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris")
    with atheris.instrument_imports(include=["msd"]):
        from msd.client.network.reply_check import check_reply
        from msd.wire.errors import ProtocolError
        from msd.wire.protocol import messages
        from msd.wire.protocol.codec import decode, encode
        from msd.wire.protocol.segments import digest, file_id
        from msd.workers.serving.answer import Identity, Job, answer, compact_request
        from msd.workers.source.catalogue import Catalogue, SharedFile, Version
        from msd.workers.source.listing import Listings
        from tests.unit.shares import write_edition
    import msgpack

    families = (
        messages.DataRequest,
        messages.DataReply,
        messages.Status,
        messages.ControlRequest,
        messages.ControlReply,
        messages.WorkerOrder,
    )
    kinds = [kind for family in families for kind in get_args(family) or (family,)]
    identity = Identity(number=1, epoch=7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = SharedFile("film.bin", Version(1, 1, 12, 1, 1), file_id(12, digest(b"") * 12))
        write_edition(folder, [file])
        catalogue = Catalogue(folder)
        listings = Listings(catalogue.listing)

    def value(random_values: Any, depth: int) -> Any:
        match random_values.ConsumeIntInRange(0, 10 if depth else 8):
            case 0:
                return random_values.ConsumeIntInRange(0, 2**64 - 1)
            case 1:
                return random_values.ConsumeIntInRange(-(2**63), 20)
            case 2:
                return random_values.ConsumeUnicodeNoSurrogates(20)
            case 3:
                return random_values.ConsumeBytes(32)
            case 4:
                return file.id
            case 5:
                return random_values.ConsumeFloat()
            case 6:
                return random_values.PickValueInList(
                    [None, True, False, "", b"", "film.bin", "awake", "asleep", "busy"]
                )
            case 7:
                return msgpack.ExtType(random_values.ConsumeIntInRange(0, 127), random_values.ConsumeBytes(4))
            case 8:
                return random_values.ConsumeIntInRange(0, 20)
            case 9:
                return [value(random_values, depth - 1) for _ in range(random_values.ConsumeIntInRange(0, 4))]
            case _:
                return header(random_values, depth - 1)

    def header(random_values: Any, depth: int) -> dict[str, Any]:
        kind = random_values.PickValueInList(kinds)
        fields = {
            name: value(random_values, depth)
            for name in kind.__struct_encode_fields__
            if random_values.ConsumeIntInRange(0, 15)
        }
        return {"type": kind.__struct_config__.tag, **fields}

    def check(frame: bytes, family: Any) -> None:
        try:
            message = decode(frame, family)
        except ProtocolError:
            return
        assert decode(encode(message), family) == message
        if family is messages.DataReply:
            for answered in (messages.GetBundle(rid=1, ids=bytes(64)), messages.List(rid=1)):
                with suppress(ProtocolError):
                    check_reply(answered, message, 32)
        if family is not messages.DataRequest:
            return
        for request in (message, compact_request(message, catalogue, listings)):
            for awake in (True, False):
                reply = answer(request, identity, catalogue, listings, awake=awake)
                if reply is not None and not isinstance(reply, Job):
                    assert decode(encode(reply), messages.DataReply) == reply

    def test_one_input(data: bytes) -> None:
        random_values = atheris.FuzzedDataProvider(data)
        is_frame = random_values.ConsumeBool()
        frame = random_values.ConsumeBytes(len(data)) if is_frame else msgpack.packb(header(random_values, 3))
        for family in families:
            check(frame, family)

    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
