"""Reading and preparing ahead: order, positions, and failures of either thread, whatever the readers share."""

import threading
from collections.abc import Iterator

import pytest

from flow.sources.ahead import AHEAD, Ahead


def counted(end: int, read: list[int], failing: int = -1) -> Iterator[tuple[int, str]]:
    for number in range(end):
        if number == failing:
            raise ValueError(f"cannot read {number}")
        read.append(number)
        yield number, f"position {number}"


def twice(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("readers", [1, 3, AHEAD + 1])
def test_items_come_prepared_in_order_with_their_own_positions(readers: int) -> None:
    items = Ahead(counted(20, []), twice, readers)
    for number in range(20):
        assert items.take() == (2 * number, f"position {number}")
    assert items.take() is None
    assert items.take() is None
    items.close()


def test_reading_goes_on_while_an_item_is_prepared_but_no_further_than_agreed() -> None:
    read: list[int] = []
    all_read, go_on = threading.Event(), threading.Event()

    def prepare(number: int) -> int:
        assert go_on.wait(10)
        return number

    def items() -> Iterator[tuple[int, str]]:
        for item in counted(20, read):
            if len(read) == AHEAD:
                all_read.set()
            yield item

    ahead = Ahead(items(), prepare, 1)
    assert all_read.wait(10)  # given: none is prepared
    assert read == list(range(AHEAD))
    go_on.set()
    assert ahead.take() == (0, "position 0")
    ahead.close()


def test_what_either_thread_raises_comes_in_its_place() -> None:
    reading = Ahead(counted(20, [], failing=2), twice, 1)
    assert [reading.take(), reading.take()] == [(0, "position 0"), (2, "position 1")]
    with pytest.raises(ValueError, match="cannot read 2"):
        reading.take()
    reading.close()
    preparing = Ahead(counted(20, []), lambda number: 1 // (number - 1), 1)
    assert preparing.take() == (-1, "position 0")
    with pytest.raises(ZeroDivisionError):
        preparing.take()
    preparing.close()
