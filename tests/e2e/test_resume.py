"""The next run: nothing twice, only what is new, and no file that is not the one it was."""

from pathlib import Path
from typing import Any

import pytest

import flow.sinks.sink
import flow.steps.deduplicate
from flow.errors import SourceError
from flow.generate import Synthetic, expected, prices_yaml
from flow.state.manifest import seal

from .harness import Pipeline, balance, event, lines, make_events, truth, write

EVENTS = make_events(900)


@pytest.mark.parametrize("suffix", [".ndjson", ".ndjson.gz", ".parquet", ".arrow"])
def test_a_second_run_finds_nothing_and_then_only_what_is_new(pipeline: Pipeline, suffix: str) -> None:
    pipeline.write(f"a{suffix}", EVENTS[:400])
    assert pipeline.run(shards=2).read == 400
    again = pipeline.run()
    assert (again.read, again.balance) == (0, balance(accepted=400))
    pipeline.write(f"b{suffix}", EVENTS[300:])
    more = pipeline.run()
    assert (more.read, more.balance) == (600, balance(accepted=900, duplicate=100))
    assert pipeline.views() == truth(EVENTS)


def bytes_in(*folders: Path) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def test_an_epoch_writes_what_is_new_whatever_went_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two jobs, one of which knows a hundred times as many events, when the same new ones come to both.
    new = [event(10**6 + n) for n in range(50)]
    appended, snapshots = [], []

    def measured(kind: str, body: dict[str, Any]) -> bytes:
        sealed = seal(kind, body)
        snapshots[-1][kind] = len(sealed)
        return sealed

    for module in (flow.steps.deduplicate, flow.sinks.sink):
        monkeypatch.setattr(module, "seal", measured)
    for name, before in (("a", 100), ("b", 10_000)):
        pipeline = Pipeline(tmp_path / name, settings={"anomalies": {"enabled": False}})
        snapshots.append({})
        pipeline.write("1.ndjson", make_events(before))
        pipeline.run()
        kept = (pipeline.folder / "state" / "shards", pipeline.folder / "ledger")
        size = bytes_in(*kept)
        pipeline.write("2.ndjson", new)
        assert pipeline.run().balance == balance(accepted=before + len(new))
        appended.append(bytes_in(*kept) - size)
    # Then fingerprints and ledger grow alike, and the snapshots differ by the digits of their numbers.
    assert appended[0] == appended[1] > 50 * 20
    assert snapshots[0].keys() == snapshots[1].keys() and len(snapshots[0]) == 2
    for kind, size in snapshots[0].items():
        assert abs(snapshots[1][kind] - size) < 40, snapshots


def test_a_file_that_has_grown_is_read_on(pipeline: Pipeline) -> None:
    path = pipeline.write("events.ndjson", EVENTS[:500])
    assert pipeline.run().read == 500
    with path.open("ab") as file:
        file.write(lines(EVENTS[500:]))
    assert pipeline.run().read == 400
    assert pipeline.views() == truth(EVENTS)


def test_a_last_line_without_its_end_is_read_whole_or_not_at_all(pipeline: Pipeline) -> None:
    # Given a writer that was met in the middle of a line.
    whole = lines(EVENTS[:10])
    path = pipeline.folder / "events" / "events.ndjson"
    path.write_bytes(whole[:-1])
    # When the file ends there, the line counts as it stands.
    assert pipeline.run().balance == balance(accepted=10)
    # Then its end, and more lines, add no event that is not there.
    path.write_bytes(whole + lines(EVENTS[10:20]))
    assert pipeline.run().balance == balance(accepted=20)
    assert pipeline.views() == truth(EVENTS[:20])


def test_a_replaced_or_shrunk_file_is_refused_until_it_is_back(pipeline: Pipeline) -> None:
    path = pipeline.write("events.ndjson", EVENTS[:500])
    kept = path.read_bytes()
    pipeline.run()
    write(path, EVENTS[400:])
    with pytest.raises(SourceError, match="is not the file that was read before"):
        pipeline.run()
    path.write_bytes(kept[:-200])
    with pytest.raises(SourceError, match="has shrunk"):
        pipeline.run()
    path.write_bytes(kept)
    assert pipeline.run().read == 0
    assert pipeline.views() == truth(EVENTS[:500])


def test_row_23_the_ledger_replays_to_the_same_bits(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS + EVENTS[::9])
    pipeline.run(shards=2)
    replay = Pipeline(pipeline.folder.parent / "replay")
    source = {"kind": "ledger", "path": str(pipeline.folder / "ledger")}
    assert replay.run(source=source, ledger=None).balance == balance(accepted=900)
    assert replay.views() == pipeline.views() == truth(EVENTS)


def test_another_batch_size_in_the_middle_of_synthetic_events_leaves_none_out(tmp_path: Path) -> None:
    # Given two readers that take turns, and a first run over a part of the events.
    spec = {"kind": "synthetic", "customers": 9, "retimed_ppm": 0, "conflicting_ppm": 0}
    settings = {"shards": 2, "limits": {"batch_rows": 100}, "source": spec | {"events": 1550}}
    pipeline = Pipeline(tmp_path, prices_yaml(), settings)
    assert pipeline.run().read == 1550
    # When the rest is read with another batch size, then it is the rest.
    outcome = pipeline.run(limits={"batch_rows": 370}, source=spec | {"events": 4000})
    assert outcome.read == 2450
    truth = expected(Synthetic(events=4000, customers=9, retimed_ppm=0, conflicting_ppm=0))
    assert outcome.balance["accepted"] == truth.accepted
