"""`tallyflow run --addresses ... --host N`: several hosts on one state directory, whatever happens to one of them."""

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest
from tests.e2e.harness import Pipeline, copy_empty_store, make_events, truth
from tests.faults.http_front import FrontProcess

from flow.cluster.hosts import Gate, Hosts, follow, identity
from flow.errors import ClusterError, ConfigError, RefusedStart, StateError
from flow.prices.book import parse_price_book
from flow.state.directory import HostLock, StateDirectory

from .hosts import Host, Network, free_ports, running

EVENTS = make_events(900)
SETTINGS = {"shards": 4, "epoch": "500ms", "limits": {"batch_rows": 20, "stall": "2s"}}


def write(pipeline: Pipeline) -> None:
    for number in range(6):
        pipeline.write(f"{number:03d}.parquet", EVENTS[number::6])
    pipeline.config()


def wait_for_blocks(pipeline: Pipeline, host: Host) -> None:
    outbox = pipeline.folder / "state" / "outbox"
    host.until(lambda: any(outbox.glob("*.json")))


def kill_a_process(by: Host, of: Host, number: int) -> None:
    """Kills the last process of a host, which has this number, and waits until the job is at work again."""
    first = of.workers()
    os.kill(first[-1], signal.SIGKILL)
    by.until(lambda: len(set(of.workers()) - set(first)) == len(first))
    assert (
        f"process {number} of the cluster (pid {first[-1]}) was killed by signal 9; all processes start again"
        in by.stderr
    )


def recovery_files(host: Host) -> set[str]:
    """What the processes of a host have open of Bytewax's recovery store."""
    found: set[str] = set()
    for pid in host.workers():
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(descriptor.readlink().name)
    return {name for name in found if ".sqlite3" in name}


def test_two_hosts_of_which_one_loses_a_process(pipeline: Pipeline) -> None:
    # given two hosts, one with two processes, of which one is killed in the middle
    pipeline.settings |= SETTINGS
    write(pipeline)
    addresses = [f"{host}:{free_ports(host)}" for host in ("127.0.0.1", "127.0.0.2")]
    zero, one = hosts = [Host(pipeline, addresses, number) for number in (0, 1)]
    with running(hosts):
        one.start(processes=2)
        zero.start()
        wait_for_blocks(pipeline, zero)
        # (SQLite must not have a file open on two hosts at a time)
        files = [recovery_files(host) for host in hosts]
        assert files[0] and files[1] and not files[0] & files[1]
        kill_a_process(by=zero, of=one, number=2)
        # when a signal reaches the host that does not decide, then all of it ends in order
        one.process.send_signal(signal.SIGTERM)
        assert "the balance is with host 0" in one.finish()
        assert "stopped by a signal" in zero.finish()
    # and the rest is done by one process alone
    outcome = pipeline.run(limits={})
    assert outcome.balance["duplicate"] == 0
    assert pipeline.views() == truth(EVENTS)


def test_a_host_without_the_same_config_is_refused(pipeline: Pipeline) -> None:
    hosts = [f"127.0.0.1:{free_ports('127.0.0.1')}", "127.0.0.1:1"]
    book = parse_price_book(pipeline.prices, "prices")
    theirs, ours = identity(pipeline.config(epoch="2s")), pipeline.config(epoch="1s")
    refused = Event()
    with Gate(Hosts(tuple(hosts), 0), theirs, 5) as gate, ThreadPoolExecutor() as threads:
        gathering = threads.submit(gate.gather, refused.is_set, print)
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"host": 9}\n', b""):  # strangers do no harm
            with socket.create_connection(Hosts(tuple(hosts), 0).endpoint(0)) as stranger:
                stranger.sendall(nonsense)
        with pytest.raises(RefusedStart, match=r"host 1: is not what host 0 has: config, with its paths; all hosts"):
            follow(ours, book, 1, 1, Hosts(tuple(hosts), 1), Event(), print)
        refused.set()
        with pytest.raises(ClusterError, match=r"stopped by a signal while waiting for host 1 \(127.0.0.1:1\)"):
            gathering.result()


def test_a_host_works_only_for_the_holder_of_the_lock(tmp_path: Path) -> None:
    ours, elsewhere = tmp_path / "state", tmp_path / "not the same storage"
    with StateDirectory(ours) as directory, StateDirectory(elsewhere):
        with pytest.raises(StateError, match=r"is not the state directory that host 0 has locked.*storage that they"):
            HostLock(elsewhere, 1, directory.holder)
        lock = HostLock(ours, 1, directory.holder)
        with pytest.raises(RefusedStart, match=r"host 1 is still in use there by pid"):
            HostLock(ours, 1, directory.holder)
        holder = directory.holder
    # While a host is at work, nobody else begins, though host 0 is gone;
    with pytest.raises(RefusedStart, match=r"processes of another host of the last job still work on it: pid"):
        StateDirectory(ours).__enter__()
    lock.release()
    # and it does not begin for a holder who is gone, whether he could clean up or was killed.
    with pytest.raises(StateError, match="is not the state directory that host 0 has locked"):
        HostLock(ours, 1, holder)
    (ours / "LOCK").write_text(holder)
    with pytest.raises(StateError, match="does not pass locks from host to host"):
        HostLock(ours, 1, holder)
    with StateDirectory(ours):
        pass


def test_addresses_are_checked() -> None:
    assert Hosts.parse("a.example:2101, [::1]:2101", 1).of_processes(1, 2) == ["[::1]:2102", "[::1]:2103"]
    with pytest.raises(ConfigError) as refused:
        Hosts.parse("a:2101,b,a:2101,c:99999", 7)
    assert [error.split("; ")[0] for error in refused.value.errors] == [
        "--addresses: 'b' is not host:port",
        "--addresses: 'c:99999' is not host:port",
        "--addresses: 'a:2101,b,a:2101,c:99999' names an address twice",
        "--host 7: there are 4 addresses, so it is one of 0 to 3",
    ]


@pytest.fixture
def network() -> Iterator[Network]:
    missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"network namespaces need {' and '.join(missing)}")
    try:
        network = Network()
    except OSError as error:
        pytest.skip(f"this user may not make network namespaces here: {error}")
    yield network
    network.close()


def test_row_33_two_hosts_of_which_one_is_killed_and_then_cut_off(tmp_path: Path, network: Network) -> None:
    front = FrontProcess(copy_empty_store(tmp_path / "server"), Network.STORE, network.prefix("s"))
    pipeline = Pipeline(tmp_path / "pipeline", settings={"store": front.url, **SETTINGS})
    write(pipeline)
    addresses = [f"{network.address(name, 'ab')}:2101" for name in "ab"]
    zero, one = hosts = [Host(pipeline, addresses, n, network.prefix(name)) for n, name in enumerate("ab")]
    with running(hosts):
        # given two hosts at work, of which the second loses a process,
        one.start()
        zero.start()
        wait_for_blocks(pipeline, zero)
        kill_a_process(by=zero, of=one, number=1)
        # when they are cut off from each other, while both still reach the store and the state,
        network.cut("ab")
        zero.until(lambda: f"host 1 ({addresses[1]}) has been silent for 2 s; all processes" in zero.stderr)
        # then neither goes on alone,
        one.until(lambda: "this host has ended its processes and waits for it" in one.stderr)
        zero.until(lambda: f"waiting for host 1 ({addresses[1]})" in zero.stderr)
        assert not one.workers()
        assert not zero.workers()
        # and when they are together again, the job ends with everything counted once.
        network.heal("ab")
        one.finish()
        zero.finish()
    front.close()
    pipeline.settings["store"] = f"chdb://{tmp_path / 'server'}"
    assert pipeline.views() == truth(EVENTS)
