"""Set-ups that would put numbers at risk, and disks that fail: one clear line, and the next run is exact."""

import fcntl
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flow.errors import StateError, TallyflowError
from flow.generate import Synthetic, expected, prices_yaml
from flow.store.client import release_engine
from flow.verify import verify

from .harness import Pipeline, assert_refused, balance, make_events, refusal, truth

EVENTS = make_events(3000)


def test_row_21_a_locked_state_directory_names_its_holder(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS)
    state = pipeline.folder / "state"
    state.mkdir()
    descriptor = os.open(state / "LOCK", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"pid 4711 on some-host, since yesterday")
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert_refused(pipeline.command("run"), 2, str(state), "in use by pid 4711 on some-host", "stop that one first")
    os.close(descriptor)
    assert pipeline.run().balance == balance(accepted=len(EVENTS))


def test_a_store_that_another_process_has_open(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS[:1000])
    pipeline.run()
    pipeline.write("more.ndjson", EVENTS[1000:])
    code = "import sys, flow.start, flow.config, pathlib\n"
    code += "client = flow.start.open_store(flow.config.load_config(pathlib.Path(sys.argv[1])))\n"
    code += "print(flush=True); sys.stdin.read()"
    arguments = [sys.executable, "-c", code, str(pipeline.config_path)]
    release_engine()
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdout.readline()
        said = ("store chdb://", f"in use by another process (pid {other.pid})", "serves one process")
        assert_refused(pipeline.command("run"), 1, *said)
        assert_refused(pipeline.command("verify"), 1, *said)
        other.stdin.close()
    assert pipeline.run().balance == balance(accepted=len(EVENTS))
    assert pipeline.views() == truth(EVENTS)


def test_a_store_and_a_state_directory_that_do_not_belong_together(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS)
    pipeline.run()
    # Another state directory would count every event a second time.
    with pytest.raises(TallyflowError, match="holds what another state directory published") as refused:
        pipeline.run(state_dir="other")
    assert refused.value.exit_code == 2
    # An emptied store would silently lack everything before.
    release_engine()
    shutil.move(pipeline.folder / "store", pipeline.folder / "kept")
    with pytest.raises(TallyflowError, match="was the store emptied or replaced") as refused:
        pipeline.run(state_dir="state")
    assert refused.value.exit_code == 2
    release_engine()
    shutil.rmtree(pipeline.folder / "store")
    shutil.move(pipeline.folder / "kept", pipeline.folder / "store")
    assert pipeline.run().read == 0
    assert pipeline.views() == truth(EVENTS)


def test_what_a_lineage_fixes_cannot_change(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS[:10])
    pipeline.run()
    with pytest.raises(TallyflowError, match="was begun with shards 1, the config says 2"):
        pipeline.run(shards=2)
    pipeline.prices = pipeline.prices.replace("USD", "EUR")
    with pytest.raises(TallyflowError, match="was begun with currency 'USD', the config says 'EUR'"):
        pipeline.run(shards=1)


@pytest.mark.parametrize("key", ["state_dir", "ledger", "store"])
def test_a_file_in_the_place_of_a_directory(pipeline: Pipeline, key: str) -> None:
    pipeline.write("events.ndjson", EVENTS[:500])
    name = pipeline.settings[key].removeprefix("chdb:")
    (pipeline.folder / name).write_text("in the way")
    refusal(pipeline, 1, str(pipeline.folder / name))
    (pipeline.folder / name).unlink()
    assert pipeline.run().balance == balance(accepted=500)
    assert pipeline.views() == truth(EVENTS[:500])


@pytest.mark.parametrize("key", ["state_dir", "ledger", "store"])
def test_a_place_where_nothing_can_be_made(pipeline: Pipeline, key: str) -> None:
    # /proc refuses new directories, even to root.
    prefix = "chdb:" if key == "store" else ""
    kept = pipeline.settings[key]
    pipeline.settings[key] = f"{prefix}/proc/tallyflow/{key}"
    pipeline.write("events.ndjson", EVENTS[:500])
    refusal(pipeline, 1, f"/proc/tallyflow/{key}")
    pipeline.settings[key] = kept
    shutil.rmtree(pipeline.folder / "ledger", ignore_errors=True)
    if key == "ledger":
        assert pipeline.run().balance == balance(accepted=500)


def limited(kilobytes: int) -> Callable[[], None]:
    """Makes every write beyond a file's size limit fail, as on a full disk, instead of ending the process."""

    def before_exec() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))

    return before_exec


@pytest.mark.parametrize("kilobytes", [1, 40, 110])
def test_row_8_a_full_disk_stops_with_one_line_and_the_next_run_is_exact(pipeline: Pipeline, kilobytes: int) -> None:
    pipeline.write("events.parquet", EVENTS)
    result = pipeline.command("run", preexec_fn=limited(kilobytes))
    assert_refused(result, 1)
    assert pipeline.run().balance == balance(accepted=len(EVENTS))
    assert pipeline.views() == truth(EVENTS)
    assert not list((pipeline.folder / "state" / "outbox").iterdir())


def test_row_8_a_full_disk_under_the_recovery_store_in_mid_run(tmp_path: Path) -> None:
    # Given a run whose recovery store grows past the limit before any other file does.
    spec = {"events": 12_000, "customers": 3, "retimed_ppm": 0, "conflicting_ppm": 0}
    source = {"kind": "synthetic", **spec}
    settings = {"source": source, "epoch": "50ms", "limits": {"batch_rows": 50}, "ledger": None}
    pipeline = Pipeline(tmp_path, prices_yaml(), settings)
    # When Bytewax panics, its report is not what the user reads.
    result = pipeline.command("run", preexec_fn=limited(150))
    assert_refused(result, 1, str(tmp_path / "state" / "recovery"), "disk I/O error", "nothing is lost")
    # Then the next run goes on from the last epoch that was committed.
    outcome = pipeline.run()
    truth = expected(Synthetic(**spec))
    assert 0 < outcome.read < truth.read
    counts = balance(accepted=truth.accepted, duplicate=truth.duplicate, rejected=truth.rejected)
    assert outcome.balance == counts


def test_a_damaged_state_is_named(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS[:500])
    pipeline.run()
    (segment,) = (pipeline.folder / "state" / "shards").rglob("*.fps")
    kept = segment.read_bytes()
    segment.write_bytes(kept[:100] + bytes([kept[100] ^ 1]) + kept[101:])
    line = assert_refused(pipeline.command("run"), 1, str(segment), "damaged at byte", "restore it from a backup")
    assert Path(line.split()[1].rstrip(":")) == segment
    segment.write_bytes(kept[:-1])
    refusal(pipeline, 1, str(segment), "are recorded")
    segment.unlink()
    refusal(pipeline, 1, str(segment), "missing")
    segment.write_bytes(kept)
    assert pipeline.run().balance == balance(accepted=500)


def test_an_old_copy_of_the_state_is_refused_though_it_has_cut_as_many_blocks(pipeline: Pipeline) -> None:
    # Given a copy of a state directory, whose original has run since without cutting a block.
    pipeline.write("a.ndjson", make_events(10))
    pipeline.run()
    shutil.copytree(pipeline.folder / "state", pipeline.folder / "copy")
    pipeline.run()
    # When the copy is started, then it is refused; the original goes on.
    with pytest.raises(StateError, match=r"copy: is older than the store: .* old copy"):
        pipeline.run(state_dir="copy")
    pipeline.write("b.ndjson", make_events(20)[10:])
    assert pipeline.run(state_dir="state").balance == balance(accepted=20)


def test_row_24_a_backup_of_state_ledger_and_store_goes_on(pipeline: Pipeline) -> None:
    # Given a backup of the three, behind which the job went on.
    folders = [pipeline.folder / name for name in ("state", "ledger", "store")]
    pipeline.write("a.ndjson", EVENTS[:200])
    pipeline.run()
    release_engine()
    for folder in folders:
        shutil.copytree(folder, pipeline.folder / "backup" / folder.name, symlinks=True)
    pipeline.write("b.ndjson", EVENTS[150:400])
    pipeline.run()
    release_engine()
    # When all three are put back, then it reads again what came since, and is where it was.
    for folder in folders:
        shutil.rmtree(folder)
        shutil.copytree(pipeline.folder / "backup" / folder.name, folder, symlinks=True)
    assert pipeline.run().balance == balance(accepted=400, duplicate=50)
    assert pipeline.views() == truth(EVENTS[:400])
    assert verify(pipeline.config()).difference_count == 0


def test_row_24_a_part_of_the_recovery_store_that_is_missing_or_older(pipeline: Pipeline) -> None:
    # Given a recovery store of two files, and a copy of it from before the last run.
    recovery, older = pipeline.folder / "state" / "recovery", pipeline.folder / "older"
    pipeline.write("a.ndjson", EVENTS[:50])
    pipeline.run(shards=2)
    shutil.copytree(recovery, older)
    pipeline.write("b.ndjson", EVENTS[50:100])
    pipeline.run()
    # When one of them is gone, then it is named, and nothing has changed.
    for part in sorted(recovery.glob("*.sqlite3")):
        kept = part.read_bytes()
        part.unlink()
        refusal(pipeline, 1, f"{part}: missing")
        part.write_bytes(kept)
    assert pipeline.run().read == 0
    # When one is the older one, then that is refused, and nothing was counted.
    shutil.copy(older / part.name, part)
    refusal(pipeline, 1, str(pipeline.folder / "state"))
    assert pipeline.views() == truth(EVENTS[:100])
