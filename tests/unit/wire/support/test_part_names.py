"""The names of part files."""

from __future__ import annotations

from msd.wire.support.part_names import MAX_SHORT_NAME, is_part_name, name_of_part, part_name, short_name


def test_a_part_name_leads_back_to_the_file() -> None:
    assert part_name("film") == ".film.msd-part"
    assert name_of_part(part_name("film")) == "film"
    assert [is_part_name(name) for name in (".film.msd-part", "film.msd-part", ".film")] == [True, False, False]
    assert is_part_name(short_name("a" * 255))


def test_a_shortened_name_is_cut_between_characters_and_fits_everywhere() -> None:
    for filling in range(5):
        for character in ("a", "ä", "€", "😀"):
            short = short_name("x" * filling + character * 250)
            assert set(short.split("~")[0]) <= {".", "x", character}
            assert MAX_SHORT_NAME - 3 <= len(short.encode()) <= MAX_SHORT_NAME
            assert short.endswith(".msd-part")


def test_similar_names_have_different_short_names() -> None:
    assert len({short_name("a" * 254 + last) for last in "bcd"}) == 3
