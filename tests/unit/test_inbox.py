"""The inbox: what is put there is read once, in order, whatever is cut short."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from flow import faults
from flow.errors import SourceError, StateError
from flow.sources import inbox as source
from flow.sources.inbox import InboxSource
from flow.sources.pausing import Flow
from flow.state.inbox import Inbox
from flow.steps.batches import Heartbeat, Lines

EPOCH_US = 5_000_000


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "state")


# ---- Putting ----


def test_numbers_grow_and_a_key_has_one_file(inbox: Inbox) -> None:
    assert (inbox.names(), inbox.find("late", "a")) == ([], None)
    assert inbox.put("redrive", b"1\n", "a") == "000000000001-redrive.ndjson"
    assert inbox.put("late", b"2\n", "a") == "000000000002-late.ndjson"
    assert inbox.put("redrive", b"3\n", "a") == "000000000001-redrive.ndjson"
    assert inbox.find("late", "a") == "000000000002-late.ndjson"
    assert {name: (inbox.path / name).read_bytes() for name in inbox.names()} == {
        "000000000001-redrive.ndjson": b"1\n",
        "000000000002-late.ndjson": b"2\n",
    }
    with pytest.raises(ValueError, match="whole lines"):
        inbox.put("late", b"2", "b")


def test_a_put_that_was_cut_short_can_be_repeated_whatever_came_between(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a put that ended when its number was taken.
    inbox.put("late", b"0\n", "before")

    def die(name: str) -> None:
        raise KeyboardInterrupt(name)

    with monkeypatch.context() as patched:
        patched.setattr(faults, "on_point", die)
        with pytest.raises(KeyboardInterrupt, match=r"inbox\.after_key"):
            inbox.put("redrive", b"1\n", "a")
    assert inbox.find("redrive", "a") is None
    # When another one takes the number, then the first is put behind it.
    assert inbox.put("redrive", b"2\n", "b") == "000000000002-redrive.ndjson"
    assert inbox.find("redrive", "a") is None
    assert inbox.put("redrive", b"1\n", "a") == "000000000003-redrive.ndjson"
    assert inbox.put("redrive", b"1\n", "a") == "000000000003-redrive.ndjson"
    assert (inbox.path / "000000000002-redrive.ndjson").read_bytes() == b"2\n"


def test_an_inbox_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_text("a file")
    with pytest.raises(StateError, match=str(tmp_path / "inbox")):
        Inbox(tmp_path).put("late", b"1\n", "a")


def test_a_name_that_another_command_has_given_is_synced_before_it_is_built_on(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a command that was killed before it synced the name of its file, when the power goes, the name goes too."""
    inbox.put("late", b"1\n", "a")
    synced: list[Path] = []
    monkeypatch.setattr("flow.state.inbox.settle", synced.append)
    assert inbox.find("late", "b") is None and synced == []
    assert inbox.find("late", "a") and synced == [inbox.path]
    assert inbox.put("late", b"1\n", "a") and synced == [inbox.path] * 2
    reading = Reading(InboxSource(inbox, Flow(Event(), lambda: False), EPOCH_US, True))
    assert len(list(reading.all())) == 1 and synced == [inbox.path] * 3
    reading.part._look_ns = 0
    assert list(reading.all()) == [] and synced == [inbox.path] * 3


# ---- Reading ----


class Reading:
    """A reader with a clock that stands still between calls."""

    def __init__(self, source_of: InboxSource, state: bytes | None = None) -> None:
        self.now_ns = 0
        self.part = source_of.build_part("inbox", "inbox", state)
        self.part._clock_ns = lambda: self.now_ns
        self.part._look_ns, self.part._epoch_ends_ns = 0, EPOCH_US * 1000

    def all(self) -> Iterator[Lines]:
        """Everything up to the end of a source that ends."""
        try:
            while True:
                for item in self.part.next_batch():
                    assert isinstance(item, Lines)
                    yield item
        except StopIteration:
            return


def text(items: Iterator[Lines]) -> list[tuple[str, int, bytes]]:
    return [(item.origin, item.offset, item.data) for item in items]


@pytest.fixture
def ending(inbox: Inbox) -> InboxSource:
    return InboxSource(inbox, Flow(Event(), lambda: False), EPOCH_US, True)


def test_an_empty_inbox_ends_at_once(ending: InboxSource) -> None:
    with pytest.raises(StopIteration):
        Reading(ending).part.next_batch()


def test_files_are_read_in_order_and_on_from_any_snapshot(
    inbox: Inbox, ending: InboxSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", 5)
    inbox.put("late", b"one\ntwo\nthree\nfour\n", "a")
    inbox.put("redrive", b"five\n", "b")
    first, second = (f"inbox/{name}" for name in inbox.names())
    expected = [(first, 0, b"one\ntwo\n"), (first, 8, b"three\n"), (first, 14, b"four\n"), (second, 0, b"five\n")]
    assert text(Reading(ending).all()) == expected
    for taken in range(len(expected) + 1):
        reading = Reading(ending)
        items = reading.all()
        before = text(next(items) for _ in range(taken))
        assert before + text(Reading(ending, reading.part.snapshot()).all()) == expected
    # What is put later is for the next run.
    done = Reading(ending)
    assert len(list(done.all())) == 4
    inbox.put("late", b"six\n", "c")
    assert text(Reading(ending, done.part.snapshot()).all()) == [("inbox/000000000003-late.ndjson", 0, b"six\n")]


def test_a_file_that_was_read_must_stay(inbox: Inbox, ending: InboxSource) -> None:
    name = inbox.put("late", b"one\n", "a")
    reading = Reading(ending)
    assert len(list(reading.all())) == 1
    (inbox.path / name).unlink()
    with pytest.raises(SourceError, match=f"{name}: missing"):
        Reading(ending, reading.part.snapshot()).part.next_batch()


def test_beside_kafka_it_looks_each_second_and_sleeps_over_no_epoch(inbox: Inbox, ending: InboxSource) -> None:
    stop = Event()
    reading = Reading(replace(ending, flow=Flow(stop, lambda: False), ends=False))
    part = reading.part

    assert list(part.next_batch()) == []
    assert part.sleep_us() == 1_000_000
    inbox.put("late", b"one\n", "a")
    reading.now_ns += 500_000_000
    assert list(part.next_batch()) == [], "not yet"
    reading.now_ns += 500_000_000
    assert [type(item) for item in part.next_batch()] == [Lines]
    assert part.next_awake() is None, "there may be more of this file"
    assert list(part.next_batch()) == []
    # The epoch ends: in the next one something has to reach the writers, or the block of this one would wait.
    part.snapshot()
    assert [type(item) for item in part.next_batch()] == [Heartbeat]
    assert list(part.next_batch()) == []
    part.snapshot()
    assert list(part.next_batch()) == []
    reading.now_ns += EPOCH_US * 1000 - 200_000_000
    assert list(part.next_batch()) == []
    assert part.sleep_us() == 200_000, "to the end of the epoch"
    reading.now_ns += 200_000_000
    assert part.sleep_us() == 800_000, "which is over"
    stop.set()
    with pytest.raises(StopIteration):
        part.next_batch()
