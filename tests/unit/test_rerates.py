"""What is remembered of re-ratings, in the formats that there were."""

import json
from pathlib import Path
from typing import cast

import pytest

from flow.config import Config
from flow.errors import StateError
from flow.rerate.rerating import _publish_unfinished
from flow.start import Claim
from flow.state.directory import StateDirectory
from flow.state.rerates import FORMAT, Rerate, Rerates

FIRST = Rerate(1, 0, 60_000_000, None, "b" * 64, "ana", "ticket 7", 5, {"shard-000": 3}, blocks=1, amount_femto=70)


def write(folder: Path, number: int, body: dict[str, object]) -> None:
    path = folder / "rerates" / f"{number:06d}" / "rerate.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(body))


def test_a_format_without_fractions_is_read(tmp_path: Path) -> None:
    old = {name: getattr(FIRST, name) for name in FIRST.__dataclass_fields__}
    del old["amount_remainder"], old["rollup_amount"]
    write(tmp_path, 1, {"format": 1, **old})
    rerates = Rerates(tmp_path)
    assert rerates.all() == [FIRST]
    number, folder = rerates.prepare()
    assert (number, folder.name) == (2, "000002")
    second = Rerate(2, 0, 60, "acme", "c", "ana", "why", 6, {}, 1, amount_femto=-4, amount_remainder=9, rollup_amount=5)
    rerates.commit(second)
    assert rerates.all() == [FIRST, second]
    assert rerates.rollup_amount() == 70 + 5


def test_a_format_of_the_future_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1, {"format": FORMAT + 1})
    with pytest.raises(StateError, match="newer Tallyflow"):
        Rerates(tmp_path).all()


def test_one_that_another_process_committed_is_synced_before_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a command that was killed before it synced the name of `rerate.json`, when the power goes, the name goes
    too: the store would have what nothing remembers."""
    rerates = Rerates(tmp_path)
    rerates.prepare()
    rerates.commit(FIRST)
    done: list[object] = []
    monkeypatch.setattr("flow.rerate.rerating.settle", done.append)
    monkeypatch.setattr("flow.rerate.rerating._publish", lambda *given: done.append(given[2]))
    config, claim = cast(Config, None), cast(Claim, None)  # for publishing alone
    assert _publish_unfinished(config, StateDirectory(tmp_path), claim) == FIRST
    assert done == [tmp_path / "rerates" / "000001", FIRST]
