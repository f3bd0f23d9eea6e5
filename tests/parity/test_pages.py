"""Goal: a page says what its column has. Method: random and odd columns, all of a column and any selection, with and
without nulls, byte for byte against plain Python, which packs one bit after the other. Numbers and codes are encoded
one by one and, where the processor can, eight at a time."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.oracle import pages as oracle
from tests.oracle.batches import PROPERTY, TEXTS, selection

from _core import pages as kernel
from flow.kernels import Rows
from flow.kernels.pages import Pages, bounds, picked, renumbered

NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-9, 9), st.sampled_from([-(2**63), 2**63 - 1, 0, 2**32, 2**16])
)
SIZES = (1, 2, 7, 8, 9, 31, 32, 33, 127, 128, 129, 130, 256, 257, 385)


def chosen(data: st.DataObject, values: list[Any]) -> tuple[Rows, list[Any]]:
    """A selection of rows, and its values."""
    rows = data.draw(st.none() | st.permutations(range(len(values))).map(lambda all_: all_[: len(all_) // 2 + 1]))
    return (None, values) if rows is None else (selection(rows), [values[row] for row in rows])


def selections(rng: random.Random, values: list[Any]) -> Iterator[tuple[Rows, list[Any]]]:
    """All rows, most of them in their order, and half of them in any; with their values."""
    yield None, values
    size = len(values)
    for rows in ([row for row in range(size) if row % 50 != 6], rng.sample(range(size), size // 2 + 1)):
        yield selection(rows), [values[row] for row in rows]


def both_ways(encode: Callable[..., memoryview], *given: Any) -> bytes:
    """What a method of Pages makes, with and without vectors."""
    kernel.use_vectors(False)
    plain = bytes(encode(*given))
    kernel.use_vectors(True)
    assert bytes(encode(*given)) == plain
    return plain


def array(values: list[Any], kind: pa.DataType, before: int) -> pa.Array:
    """With so many other values before its first row."""
    return pa.array([None] * before + values, kind).slice(before)


@PROPERTY
@given(st.lists(st.none() | TEXTS, min_size=1), st.integers(0, 9), st.data())
@example(["x" * 63, "y" * 64, "z" * 65, "", "w" * 200], 0, None)
def test_texts(values: list[str | None], before: int, data: st.DataObject | None) -> None:
    rows, found = chosen(data, values) if data is not None else (None, values)
    page = Pages().texts(array(values, pa.string(), before), rows, len(found))
    assert bytes(page) == oracle.texts([text for text in found if text is not None])


@pytest.mark.parametrize("bits", range(1, 32))
def test_codes(bits: int) -> None:
    rng, pages = random.Random(bits), Pages()
    for size in SIZES:
        values = [rng.choice([0, 2**bits - 1, rng.getrandbits(bits)]) for _ in range(size)]
        codes = pa.array(values, pa.int32())
        for rows, found in selections(rng, values):
            assert both_ways(pages.codes, codes, bits, rows, len(found)) == oracle.codes(found, bits)


@PROPERTY
@given(st.lists(st.none() | NUMBERS, min_size=1, max_size=400), st.integers(0, 9), st.data())
def test_numbers(values: list[int | None], before: int, data: st.DataObject) -> None:
    rows, found = chosen(data, values)
    column, pages = array(values, pa.int64(), before), Pages()
    bits, known = pages.valid(column, rows, len(found))
    assert bytes(bits) == oracle.bits([number is not None for number in found])
    there = [number for number in found if number is not None]
    assert known == len(there)
    assert both_ways(pages.numbers, column, rows, len(found), known) == oracle.numbers(there)


@pytest.mark.parametrize("width", range(65))
@pytest.mark.parametrize("nulls", [False, True])
def test_numbers_whose_differences_have_any_width(width: int, *, nulls: bool) -> None:
    rng = random.Random(width)
    for size in SIZES:
        values, number = [], 0
        for _ in range(size):
            number = oracle.wrapped(number + (rng.getrandbits(width) if width else 0))
            values.append(None if nulls and rng.random() < 0.4 else number)
        column = pa.array(values, pa.int64())
        for rows, found in selections(rng, values):
            there = [number for number in found if number is not None]
            assert both_ways(Pages().numbers, column, rows, len(found), len(there)) == oracle.numbers(there)


@pytest.mark.parametrize("value", [0, 7, -(2**63), 2**63 - 1])
def test_blocks_without_differences_and_with_the_greatest(value: int) -> None:
    for values in (
        [value] * 300,
        [value, oracle.wrapped(value + 2**63)] * 150,
        [value, -value // 3, 2 * (value // 3)] * 100,
    ):
        column = pa.array(values, pa.int64())
        assert both_ways(Pages().numbers, column, None, len(values), len(values)) == oracle.numbers(values)


def test_narrow_numbers() -> None:
    rng = random.Random(5)
    for nulls in (0, 0.4):
        values = [None if rng.random() < nulls else rng.choice([0, 2**31 - 1, rng.getrandbits(9)]) for _ in range(300)]
        column = pa.array(values, pa.int32())
        for rows, found in selections(rng, values):
            there = [number for number in found if number is not None]
            assert both_ways(Pages().numbers, column, rows, len(found), len(there)) == oracle.numbers(there)


@PROPERTY
@given(st.lists(NUMBERS, min_size=1), st.data())
def test_bounds(values: list[int], data: st.DataObject) -> None:
    rows, found = chosen(data, values)
    assert bounds(pa.array(values, pa.int64()), rows, len(found)) == (min(found), max(found))


def test_nothing_has_no_bounds() -> None:
    with pytest.raises(ValueError, match="nothing has no bounds"):
        bounds(pa.array([], pa.int64()), None, 0)


@PROPERTY
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.data())
def test_renumbered(values: list[str], data: st.DataObject) -> None:
    rows, found = chosen(data, values)
    column = pa.DictionaryArray.from_arrays(pa.array(["gh".find(v) + 7 for v in values], pa.int32()), list("abcdefZgh"))
    names = [column[row].as_py() for row in range(len(values))]
    expected = picked(pa.array(names), rows, len(found)).to_pylist()
    new = renumbered(column, rows, len(found))
    new.validate(full=True)
    assert new.to_pylist() == expected
    assert new.dictionary.to_pylist() == list(dict.fromkeys(expected))


def test_room_is_used_again() -> None:
    """A page is there until the next is made, however large that is."""
    pages, sizes = Pages(), [1, 50_000, 3, 49_999]
    for size in sizes:
        values = [f"id {n}" for n in range(size)]
        assert bytes(pages.texts(pa.array(values), None, size)) == oracle.texts(values)
