"""Reading a piece of any copy of a file, and comparing it with what was indexed."""

from __future__ import annotations

from msgspec.structs import replace

from msd.wire.protocol.segments import content_id, digest
from msd.wire.protocol.states import RefusalReason
from msd.workers.source.catalogue import SharedFile, Version
from msd.workers.source.source import Piece, PieceOrder, ReadRefused, Wait, read_piece, read_pieces

ID = content_id(memoryview(b"data"))
CHANGED = ReadRefused(RefusalReason.CHANGED, "the content of the file is not what was indexed")


class Memory:
    """A source whose reads have to be waited for."""

    def __init__(self, **contents: bytes | ReadRefused) -> None:
        self.contents = contents

    def waits_for(self, file: SharedFile) -> Wait:
        return Wait("memory", 1.0)

    def has_reliable_versions(self, file: SharedFile) -> bool:
        return False

    def read(self, file: SharedFile, offset: int, length: int) -> bytes | ReadRefused:
        content = self.contents[file.name]
        return content if isinstance(content, ReadRefused) else content[offset : offset + length]

    def close_unread(self) -> None: ...

    def close(self) -> None: ...


def order(*names: str, expected: bytes | None = None) -> PieceOrder:
    files = tuple(SharedFile(name, Version(0, 0, 4, 0, 0), ID) for name in names)
    return PieceOrder(Piece(ID, 0), files, 0, 4, expected, Wait("memory", 1.0))


def test_the_first_copy_that_is_right_is_returned() -> None:
    source = Memory(a=b"else", b=ReadRefused(RefusalReason.UNREADABLE, "no"), c=b"data")
    assert read_piece(source, order("a", "b", "c")) == b"data"
    assert read_piece(source, order("b", "a")) == CHANGED
    assert read_piece(source, order("a", "b")) == ReadRefused(RefusalReason.UNREADABLE, "no")


def test_a_segment_is_compared_with_its_digest() -> None:
    assert read_piece(Memory(a=b"data"), order("a", expected=digest(b"data"))) == b"data"
    assert read_piece(Memory(a=b"data"), order("a", expected=digest(b"else"))) == CHANGED


def test_a_new_version_with_the_indexed_content_is_right() -> None:
    assert read_piece(Memory(a=ReadRefused(RefusalReason.CHANGED, "", b"data")), order("a")) == b"data"


def test_data_that_is_too_short_is_not_right() -> None:
    assert read_piece(Memory(a=b"dat"), order("a", expected=digest(b"dat"))) == CHANGED


def test_pieces_that_were_read_together_are_compared_one_by_one() -> None:
    """The second piece is wrong in the first file, and missing in the last one."""
    source = Memory(a=b"dataelsedata", b=b"datadatadata", c=b"data", d=ReadRefused(RefusalReason.UNAVAILABLE, "away"))
    for names, second in ((("a",), CHANGED), (("a", "b"), b"data"), (("c",), CHANGED)):
        third = b"data" if names[0] == "a" else CHANGED
        orders = [replace(order(*names), piece=Piece(ID, index), offset=4 * index) for index in range(3)]
        assert [*read_pieces(source, orders).values()] == [b"data", second, third]
    orders = [replace(order("d"), piece=Piece(ID, index)) for index in range(2)]
    assert [*read_pieces(source, orders).values()] == [source.contents["d"]] * 2
