"""The accuracy benchmark, with few events: it is exact, and it tells what is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy.py"


@pytest.mark.slow
def test_a_small_accuracy_benchmark(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    scale = ["--events", "5000", "--kills", "2", "--outages", "1", "--epoch-ms", "50", "--sides", "tallyflow"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *scale, "naive insert", "--data", str(tmp_path), "--result", str(result)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    exact, naive = json.loads(result.read_text())["sides"]
    for side in (exact, naive):
        assert (side["kills"], side["outages"]) == (2, 1)
    assert [exact[name] for name in ("events_lost", "events_counted_twice", "digest_mismatches")] == [0, 0, 0]
    assert (exact["amount_error_femto"], exact["other_differences"]) == ("0", [])
    # 2 % duplicates and 0.1 % conflicting events are counted twice at the least.
    assert naive["events_counted_twice"] > 80
    assert naive["digest_mismatches"] > 0
    assert int(naive["amount_error_femto"]) > 0
