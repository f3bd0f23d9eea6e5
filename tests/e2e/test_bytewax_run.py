"""The job, started by Bytewax's own runner."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from flow.bytewax_run import arguments

from .harness import Pipeline, make_events, truth


@pytest.mark.parametrize("target", ["flow.job", "flow.bytewax_run:flow"])
def test_bytewax_runs_the_job(tmp_path: Path, target: str) -> None:
    events = make_events(50)
    pipeline = Pipeline(tmp_path)
    pipeline.write("events.ndjson", events)
    pipeline.config()
    command = [sys.executable, "-m", "bytewax.run", target, "-w", "2"]
    done = subprocess.run(
        command,
        env=os.environ | {"TALLYFLOW_CONFIG": str(pipeline.config_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Balance of the lineage" in done.stdout
    assert pipeline.views() == truth(events)


def given(**changes: Any) -> Namespace:
    names = ("recovery_directory", "snapshot_interval", "backup_interval", "workers_per_process", "process_id")
    return Namespace(**dict.fromkeys((*names, "addresses")) | changes)


def test_its_options_become_ours(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = given(process_id=1, addresses="a:2101;b:2101", workers_per_process=3)
    assert arguments(given(), "c.yaml") == ["c.yaml", "--workers", "1"]
    assert arguments(hosts, "c.yaml") == ["c.yaml", "--workers", "3", "--addresses", "a:2101,b:2101", "--host", "1"]
    for wrong, config, said in (
        (given(), "", "TALLYFLOW_CONFIG"),
        (given(recovery_directory=Path("r")), "c.yaml", "its config has state_dir and epoch"),
    ):
        with pytest.raises(SystemExit) as refused:
            arguments(wrong, config)
        assert refused.value.code == 2
        assert said in capsys.readouterr().err
