"""Row 8, on real file systems that are full: the state, parts of it, the ledger, the embedded store."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .full_disks import PLACES

NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def test_row_8_a_full_file_system_anywhere_stops_with_its_name_and_loses_nothing(tmp_path: Path) -> None:
    may_mount = (
        shutil.which("unshare")
        and not subprocess.run(
            [*NAMESPACE, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, timeout=60, check=False
        ).returncode
    )
    if not may_mount:  # the simulator's disk and tests/unit/test_appender.py are full everywhere
        pytest.skip("this user may not make mount namespaces here")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.faults.full_disks", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.keys() == PLACES.keys()
    for place, line in said.items():
        assert f"/{place}" in line and "the disk is full; free s" in line and "nothing is lost" in line, line
