"""Bundles of small files: each file is verified by its id, and refused files do not hold up their neighbours."""

from __future__ import annotations

import pytest

from msd.client.operations.bundle_transfer import BundleTransfer
from msd.client.plan.plan import Plan
from msd.wire.errors import SourceError
from msd.wire.protocol.messages import FILE_OK, Bundle, Entry
from msd.wire.protocol.segments import content_id
from msd.wire.protocol.states import RefusalReason

CONTENTS = {"a": b"1" * 10, "b": b"2" * 20, "c": b"3" * 5}
DATA = b"".join(CONTENTS.values())


class Scene:
    """A bundle of three files."""

    def __init__(self) -> None:
        entries = [
            Entry(name=name, size=len(data), mtime_ns=0, id=content_id(memoryview(data)))
            for name, data in CONTENTS.items()
        ]
        self.plan = Plan()
        self.plan.add(entries)
        self.plan.finish()
        self.saved: dict[str, bytes] = {}
        self.given_back: list[str] = []
        self.bundle = BundleTransfer(
            self.plan,
            0,
            entries,
            save=lambda entry, data: self.saved.update({entry.name: bytes(data)}),
            give_back=lambda entry: self.given_back.append(entry.name),
        )

    def receive(
        self,
        data: bytes,
        *lengths: int,
        start: int = 0,
        length: int = len(DATA),
        refused: int = -1,
        reason: RefusalReason = RefusalReason.CHANGED,
    ) -> bytes:
        """Returns the bytes of the unit in a reply. The file with the position ``refused`` in the reply is refused."""
        statuses = [reason.value if position == refused else FILE_OK for position in range(len(lengths))]
        reply = Bundle(rid=1, epoch=7, statuses=statuses, lengths=[*lengths])
        return bytes(self.bundle.data_of(start, length, reply, memoryview(data)))

    def take(self, data: bytes) -> None:
        assert self.bundle.find_corrupt(0, memoryview(data)) is None
        self.bundle.write(0, memoryview(data))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_whole_bundle_is_cut_into_its_files(scene: Scene) -> None:
    assert scene.bundle.sizes == [35]
    request = scene.bundle.request(0, 0, 35)
    assert (len(request.ids), request.start, request.length) == (96, 0, None)
    assert scene.receive(DATA, 10, 20, 5) == DATA
    scene.take(DATA)
    assert scene.saved == CONTENTS
    assert scene.given_back == []


def test_a_part_names_only_the_files_with_bytes_in_it(scene: Scene) -> None:
    request = scene.bundle.request(0, 12, 20)
    assert (len(request.ids), request.start, request.length) == (64, 2, 20)
    assert scene.receive(DATA[12:32], 18, 2, start=12, length=20) == DATA[12:32]


def test_a_refused_file_is_given_back_and_its_neighbours_are_saved(scene: Scene) -> None:
    data = scene.receive(DATA[:10] + DATA[30:], 10, 0, 5, refused=1)
    assert data == DATA[:10] + bytes(20) + DATA[30:]
    scene.take(data)
    assert scene.saved == {"a": CONTENTS["a"], "c": CONTENTS["c"]}
    assert scene.given_back == ["b"]


def test_a_worker_that_sends_none_of_the_files_refuses_the_bundle(scene: Scene) -> None:
    def refusal_of(*statuses: str, of_peer: bool = False) -> RefusalReason | None:
        reply = Bundle(rid=1, epoch=7, statuses=[*statuses], lengths=[0] * len(statuses))
        return scene.bundle.refusal_of(reply, of_peer=of_peer)

    assert refusal_of("unknown", "changed") is RefusalReason.UNKNOWN
    assert refusal_of("new-reason") is RefusalReason.OTHER
    assert refusal_of("unknown", FILE_OK) is None
    assert refusal_of(FILE_OK, "unknown", of_peer=True) is RefusalReason.UNKNOWN, "workers may have the file"
    assert refusal_of(FILE_OK, FILE_OK, of_peer=True) is None


def test_a_file_that_is_refused_in_one_part_is_given_back(scene: Scene) -> None:
    first = scene.receive(DATA[:10], 10, 0, length=15, refused=1)
    second = scene.receive(DATA[15:], 15, 5, start=15, length=20)
    assert (len(first), len(second)) == (15, 20)
    scene.take(first + second)
    assert scene.given_back == ["b"]


def test_instead_of_an_unknown_file_more_of_the_last_one_may_come(scene: Scene) -> None:
    """The worker does not know how long the unknown file is, and sends as many bytes as are requested."""
    part = scene.receive(DATA[10:28], 0, 18, length=18, refused=0, reason=RefusalReason.UNKNOWN)
    assert part == bytes(10) + DATA[10:18]
    assert [scene.bundle.refused_bytes(*place) for place in ((0, 35), (4, 2), (8, 20), (10, 25))] == [10, 2, 2, 0]
    scene.take(part + scene.receive(DATA[18:], 12, 5, start=18, length=17))
    assert scene.saved == {"b": CONTENTS["b"], "c": CONTENTS["c"]}
    assert scene.given_back == ["a"]
    other = Scene()
    assert other.receive(DATA[10:28], 0, 18, length=18, refused=0) == b"", "the length of a changed file is known"
    assert other.receive(DATA[10:17], 0, 7, length=18, refused=0, reason=RefusalReason.UNKNOWN) == b""


@pytest.mark.parametrize("lengths", [(20, 10, 5), (10, 25, 0), (10, 20, 4)])
def test_lengths_that_lie_make_the_reply_useless(scene: Scene, lengths: tuple[int, int, int]) -> None:
    assert scene.receive(DATA[: sum(lengths)], *lengths) == b""


def test_a_corrupt_file_is_named(scene: Scene) -> None:
    wrong = DATA[:15] + b"?" + DATA[16:]
    assert scene.bundle.find_corrupt(0, memoryview(wrong)) == (content_id(memoryview(CONTENTS["b"])), 0)
    assert scene.bundle.find_corrupt(0, memoryview(b"")) == (content_id(memoryview(CONTENTS["a"])), 0)


def test_a_lost_bundle_gives_back_all_files(scene: Scene) -> None:
    scene.bundle.lose(SourceError("all workers are banned"))
    assert scene.given_back == ["a", "b", "c"]
