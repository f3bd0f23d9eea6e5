"""Row 24: a file of the state is cut, flipped or gone. The next run names it and stops; with it back it is exact."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.harness import Pipeline, balance

from flow.errors import StateError, TallyflowError
from flow.generate import Synthetic, expected, expected_quantities
from flow.store.client import release_engine

from .test_crash_points import CRASHED, SPEC, THE_REST, crash, make_pipeline

Damage = Callable[[bytes], bytes]
KINDS = {
    "segment": "state/shards/shard-000/*.fps",
    "outbox-rows": "state/outbox/*-rollup_minute.arrow",
    "outbox-balance": "state/outbox/*-pipeline_balance.arrow",
    "outbox-block": "state/outbox/*.json",
    "lineage": "state/lineage.json",
    "open-ledger": "ledger/open/*.pieces",
}


@pytest.fixture(scope="session")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A state directory that has everything: segments, open ledger files, a frozen block that is not published."""
    pipeline = make_pipeline(tmp_path_factory.mktemp("crashed"))
    pipeline.settings["shards"] = 1
    # The first insert is that of its first block's minutes.
    assert crash(pipeline, "publisher.after_insert:1") == CRASHED
    for pattern in KINDS.values():
        assert list(pipeline.folder.glob(pattern)), pattern
    return pipeline


@pytest.fixture
def pipeline(tmp_path: Path, crashed: Pipeline) -> Pipeline:
    """A copy that may be damaged."""
    folder = tmp_path / "pipeline"
    shutil.copytree(crashed.folder, folder, symlinks=True)
    return Pipeline(folder, crashed.prices, crashed.settings)


def assert_exact(pipeline: Pipeline) -> None:
    spec = Synthetic(**SPEC)
    truth = expected(spec)
    counts = balance(accepted=truth.accepted, duplicate=truth.duplicate, rejected=truth.rejected)
    assert pipeline.run(**THE_REST).balance == counts
    sums = dict(pipeline.rows("SELECT meter, sum(quantity) FROM usage_by_minute GROUP BY meter"))
    assert sums == expected_quantities(spec) | {"requests": truth.accepted}


def flipped(place: int) -> Damage:
    """One bit of this byte."""
    return lambda content: content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_row_24_damage_is_named(pipeline: Pipeline, kind: str) -> None:
    path, state = min(pipeline.folder.glob(KINDS[kind])), pipeline.folder / "state"
    kept = path.read_bytes()
    # What stands at the end of an append-only file may be of no epoch, and is cut off: so all damage is near its head.
    damages: list[Damage] = [flipped(0), lambda content: content[:40]]
    if kind == "lineage":
        damages.append(lambda content: content.replace(b'"id": "', b'"id": "0'))
    else:
        damages += [flipped(9), flipped(60)]
    for damage in damages:
        path.write_bytes(damage(kept))
        with pytest.raises(TallyflowError) as stopped:
            pipeline.run()
        said = str(stopped.value)
        assert "\n" not in said
        # A lineage that reads as another one is refused for what it is then.
        assert str(path) in said or (kind == "lineage" and str(state) in said), said
        path.write_bytes(kept)
    path.unlink()
    with pytest.raises(StateError, match=r"missing|No such file") as stopped:
        pipeline.run()
    assert str(path) in str(stopped.value)
    path.write_bytes(kept)
    assert_exact(pipeline)


@pytest.mark.slow
def test_row_24_a_damaged_recovery_store_is_named_or_does_not_matter(pipeline: Pipeline, crashed: Pipeline) -> None:
    # SQLite has no checksums of its own: a flipped bit may be in a snapshot, in a number, or in free space. In its
    # log it has, and takes what is behind a wrong one for not written: an older epoch, which is exact or refused.
    draw = random.Random(24)
    recovery = pipeline.folder / "state" / "recovery"
    named = 0
    for name in sorted(path.name for path in recovery.iterdir()):
        kept = (recovery / name).read_bytes()
        places = [draw.randrange(len(kept)) for _ in range(3)] if kept else []
        if b"TLYF" in kept:
            places += [kept.index(b"TLYF") + 30, kept.rindex(b"TLYF") + 30]
        for place in places:
            (recovery / name).write_bytes(flipped(place)(kept))
            try:
                assert_exact(pipeline)
            except TallyflowError as stopped:
                assert str(pipeline.folder / "state") in str(stopped), stopped
                assert "\n" not in str(stopped)
                named += 1
            release_engine()
            shutil.rmtree(pipeline.folder)
            shutil.copytree(crashed.folder, pipeline.folder, symlinks=True)
    assert named > 0
