"""Work beside the dataflow: in order, so many ahead, and nothing behind what failed."""

import threading

import pytest

from flow.state.beside import Beside


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_tasks_are_done_in_order(ahead: int) -> None:
    beside, done = Beside(ahead), []
    begun = [beside.begin(lambda n=n: done.append(n) or n) for n in range(20)]
    beside.close()
    assert done == list(range(20)) == [task.result() for task in begun]


def test_no_more_wait_than_may() -> None:
    beside, go_on = Beside(2), threading.Event()
    done: list[int] = []
    beside.begin(go_on.wait)
    beside.begin(lambda: done.append(1))
    third = threading.Thread(target=lambda: beside.begin(lambda: done.append(2)))
    third.start()
    third.join(0.05)  # it cannot end, however long it is waited for
    assert third.is_alive() and not done
    go_on.set()
    third.join()
    beside.close()
    assert done == [1, 2]


def test_nothing_is_done_behind_what_failed() -> None:
    beside, done = Beside(5), []

    def fail() -> None:
        raise OSError("full")

    tasks = [beside.begin(task) for task in (lambda: done.append(1), fail, lambda: done.append(2))]
    with pytest.raises(OSError, match="full"):
        tasks[2].result()
    with pytest.raises(OSError, match="full"):
        beside.wait()
    with pytest.raises(OSError, match="full"):
        beside.begin(lambda: done.append(3)).result()
    beside.end()
    assert done == [1]


def test_nothing_is_done_behind_what_failed_at_once() -> None:
    beside, done = Beside(0), []
    with pytest.raises(ZeroDivisionError):
        beside.begin(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        beside.begin(lambda: done.append(1))
    assert not done
