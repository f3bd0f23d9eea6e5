"""Row 26: what an earlier version has left goes on; what a newer one wrote, or a step that is not known, stops the job.

A checkpoint is the folder of a job that was killed at its end: events, state, ledger and store. The job had read
1.ndjson in one run, with all of it published, and 2.ndjson in the next, which had published none of it.
`format-1` was made before shards were spread over the workers. One is added with every release.
"""

import json
import tarfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from bytewax import operators

from flow.errors import StateError
from flow.verify import verify

from .harness import Event, Pipeline, balance, make_events, truth

EVENTS = make_events(50)
CHECKPOINTS = sorted((Path(__file__).parent / "checkpoints").glob("*.tar.xz"))


def events_of(path: Path) -> list[Event]:
    events: list[Event] = [json.loads(line) for line in path.read_text().splitlines()]
    return [event | {"time": datetime.fromisoformat(event["time"])} for event in events]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
def test_row_26_a_checkpoint_of_an_earlier_version_goes_on_exactly(checkpoint: Path, tmp_path: Path) -> None:
    with tarfile.open(checkpoint) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # since 3.11.4; later versions ask for one
        archive.extractall(tmp_path)
    assert list((tmp_path / "state" / "outbox").glob("*.json"))
    assert list((tmp_path / "ledger" / "open").iterdir())
    pipeline = Pipeline(tmp_path, (tmp_path / "prices.yaml").read_text(), {"shards": 2})
    events = [event for path in sorted((tmp_path / "events").iterdir()) for event in events_of(path)]
    more = [event | {"id": f"{event['id']}-again"} for event in events]
    pipeline.write("3.ndjson", more)
    # Its files lie elsewhere now, so that they are read again: each event is known.
    assert pipeline.run().balance == balance(accepted=2 * len(events), duplicate=len(events))
    assert pipeline.views() == truth([*events, *more])
    assert pipeline.run().read == 0
    assert verify(pipeline.config()).difference_count == 0


@pytest.mark.parametrize("what", ["manifests", "lineage", "segments"])
def test_row_26_what_a_newer_version_wrote_stops_the_job(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    pipeline.write("1.ndjson", EVENTS)
    state, newer = pipeline.folder / "state", "written by a newer Tallyflow"
    named, patched, value, said = {
        "manifests": (state / "recovery", "flow.state.manifest.VERSION", 2, f"{newer} \\(format 2, this one knows 1"),
        "lineage": (state / "lineage.json", "flow.state.directory.FORMAT", 3, newer),
        "segments": (state / "shards", "flow.state.segments._HEADER", b"TLSG\2\0\0\0", "not a segment of fingerprints"),
    }[what]
    with monkeypatch.context() as later:
        later.setattr(patched, value)
        assert pipeline.run().balance == balance(accepted=len(EVENTS))
    with pytest.raises(StateError, match=said) as stopped:
        pipeline.run()
    assert str(named) in str(stopped.value)


@pytest.mark.parametrize(
    ("step", "operator", "said"),
    [
        ("deduplicate", "stateful_batch", "step deduplicate, shard-000: missing, and the shard has published before"),
        ("outbox", "output", "state: is older than the store: shard-000 is at block 0, the store has block 1"),
    ],
)
def test_row_26_a_step_of_another_name_finds_no_state_and_stops(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str, operator: str, said: str
) -> None:
    # given a job that has published, when a step has another name, under which nothing is kept
    pipeline.write("1.ndjson", EVENTS)
    pipeline.run()
    made: Callable[..., Any] = getattr(operators, operator)
    with monkeypatch.context() as renamed:
        renamed.setattr(operators, operator, lambda name, *given: made(f"{name}_2" if name == step else name, *given))
        with pytest.raises(StateError, match=said):
            pipeline.run()
    # then nothing was published, and the job goes on under its old name
    pipeline.write("2.ndjson", make_events(60)[50:])
    assert pipeline.run().balance == balance(accepted=60)
    assert pipeline.views() == truth(make_events(60))
