"""Coverage-guided fuzzing of the codec and of a worker's answers, by atheris. Pytest does not collect it.

In the folder of the project: ``pip install atheris && python -m tests.fuzz.fuzz_codec -max_total_time=600 [CORPUS]``

An input is a frame as it is, or a recipe for a header whose keys are those of some message. The first exception that
is no ``ProtocolError`` ends it, with a traceback and the input in a file.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args


def main() -> None:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris")
    with atheris.instrument_imports(include=["wire", "workers"]):
        from msd.wire.errors import ProtocolError
        from msd.wire.protocol import messages
        from msd.wire.protocol.codec import decode, encode
        from msd.wire.protocol.segments import digest, file_id
        from msd.workers.serving.answer import Identity, Job, answer, to_keep
        from msd.workers.source.catalogue import Catalogue, SharedFile, Version
    import msgpack
    import msgspec

    families = (
        messages.DataRequest,
        messages.DataReply,
        messages.Status,
        messages.ControlRequest,
        messages.ControlReply,
        messages.WorkerOrder,
    )
    kinds = [kind for family in families for kind in get_args(family) or (family,)]
    me = Identity(number=1, epoch=7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = SharedFile("film.bin", Version(1, 1, 12, 1, 1), file_id(12, digest(b"") * 12), 0)
        (folder / "files.jsonl").write_bytes(msgspec.json.Encoder().encode_lines([file]))
        (folder / "digests").write_bytes(digest(b"") * 12)
        catalogue = Catalogue(folder)

    def value(recipe: Any, depth: int) -> Any:
        match recipe.ConsumeIntInRange(0, 10 if depth else 8):
            case 0:
                return recipe.ConsumeIntInRange(0, 2**64 - 1)
            case 1:
                return recipe.ConsumeIntInRange(-(2**63), 20)
            case 2:
                return recipe.ConsumeUnicodeNoSurrogates(20)
            case 3:
                return recipe.ConsumeBytes(32)
            case 4:
                return file.id
            case 5:
                return recipe.ConsumeFloat()
            case 6:
                return recipe.PickValueInList([None, True, False, "", b"", "film.bin", "awake", "asleep", "busy"])
            case 7:
                return msgpack.ExtType(recipe.ConsumeIntInRange(0, 127), recipe.ConsumeBytes(4))
            case 8:
                return recipe.ConsumeIntInRange(0, 20)
            case 9:
                return [value(recipe, depth - 1) for _ in range(recipe.ConsumeIntInRange(0, 4))]
            case _:
                return header(recipe, depth - 1)

    def header(recipe: Any, depth: int) -> dict[str, Any]:
        kind = recipe.PickValueInList(kinds)
        fields = {name: value(recipe, depth) for name in kind.__struct_fields__ if recipe.ConsumeIntInRange(0, 15)}
        return {"type": kind.__struct_config__.tag, **fields}

    def check(frame: bytes, family: Any) -> None:
        try:
            message = decode(frame, family)
        except ProtocolError:
            return
        assert decode(encode(message), family) == message
        if family is not messages.DataRequest:
            return
        for request in (message, to_keep(message, catalogue)):
            for awake in (True, False):
                reply = answer(request, me, catalogue, awake=awake)
                if reply is not None and not isinstance(reply, Job):
                    assert decode(encode(reply), messages.DataReply) == reply

    def once(data: bytes) -> None:
        recipe = atheris.FuzzedDataProvider(data)
        is_frame = recipe.ConsumeBool()
        frame = recipe.ConsumeBytes(len(data)) if is_frame else msgpack.packb(header(recipe, 3))
        for family in families:
            check(frame, family)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
