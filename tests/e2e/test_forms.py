"""Every input form, and every way of cutting and ordering the same events, gives the same views, digest included."""

import random
from pathlib import Path

import pytest

from flow.steps.rate import Rater

from .harness import Pipeline, balance, cloud, flat, make_events, truth

EVENTS = make_events(3000)


@pytest.fixture(scope="module")
def expected() -> object:
    return truth(EVENTS)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("events.ndjson", flat),
        ("events.ndjson", cloud),
        ("events.jsonl.gz", cloud),
        ("events.parquet", flat),
        ("events.arrow", flat),
    ],
)
def test_every_form_gives_the_same_views(pipeline: Pipeline, expected: object, name: str, form: object) -> None:
    pipeline.write(name, EVENTS, form)
    assert pipeline.run().balance == balance(accepted=len(EVENTS))
    assert pipeline.views() == expected


def test_several_files_of_all_forms_in_globs_and_folders(pipeline: Pipeline, expected: object) -> None:
    (pipeline.folder / "events" / "deep").mkdir()
    names = ["a.ndjson", "b.jsonl.gz", "c.parquet", "deep/d.arrow", "deep/e.json"]
    for n, name in enumerate(names):
        pipeline.write(name, EVENTS[n :: len(names)], cloud if n % 2 else flat)
    source = {"kind": "files", "path": ["events/*.ndjson", "events/[bc].*", "events/**/*"]}
    assert pipeline.run(source=source, shards=3).balance == balance(accepted=len(EVENTS))
    assert pipeline.views() == expected


@pytest.mark.parametrize(
    ("seed", "batch_rows", "shards", "workers"), [(1, 1, 1, 1), (2, 97, 4, 1), (3, 65_536, 4, 2), (4, 1000, 1, 2)]
)
def test_any_order_batch_shards_and_workers_give_the_same_bits(
    tmp_path: Path, seed: int, batch_rows: int, shards: int, workers: int
) -> None:
    # Given the same events in another order, some of them twice (exact retries).
    events = EVENTS[:800] if batch_rows == 1 else EVENTS
    shuffled = events + events[::7]
    random.Random(seed).shuffle(shuffled)
    # When they are cut into other batches, shards and workers.
    pipeline = Pipeline(tmp_path)
    for part in range(3):
        pipeline.write(f"{part}.{['parquet', 'ndjson', 'arrow'][part]}", shuffled[part::3])
    outcome = pipeline.run(workers, shards=shards, limits={"batch_rows": batch_rows})
    # Then nothing of it shows.
    assert outcome.balance == balance(accepted=len(events), duplicate=len(events[::7]))
    assert pipeline.views() == truth(events)


def test_a_worker_compiles_the_price_book_once(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given many batches; Bytewax's workers are no threads of Python's, whose locals would last for one batch.
    compiled = []
    monkeypatch.setattr("flow.job.Rater", lambda book: compiled.append(book) or Rater(book))
    pipeline.write("a.parquet", EVENTS)
    # When one worker rates them, then it compiles one book.
    pipeline.run(limits={"batch_rows": 50})
    assert len(compiled) == 1
