"""Goal: no rise of a kernel's instructions passes unseen. Method: counts by hand; no valgrind."""

import json
from pathlib import Path

import pytest
from benchmarks.baseline import FILE, LIMIT, Accepted, Built, accept, compare, load

GCC = Built("x86_64", "GCC: (Debian 12.2.0-14+deb12u1) 12.2.0")
WORK = {"rate": {"rate": 200.0}, "cut": {"combine": 100.0, "usage": 3.0}}
SETS = {GCC.key: Accepted(GCC.compiler, "3.3.1", "3.11.7", "2026-11-22", WORK)}


def counts(**changed: float) -> dict[str, dict[str, float]]:
    """The accepted counts, with those of some kernels changed."""
    return {work: {kernel: changed.get(kernel, now) for kernel, now in of.items()} for work, of in WORK.items()}


@pytest.mark.parametrize(
    ("now", "failing"),
    [
        ({}, []),
        ({"rate": 220.0, "usage": 3.5}, []),  # at the limit; and 17 % more, but half an instruction
        ({"rate": 221.0}, ["rate: rate takes 221.0 instructions an event, 200.0 were accepted (+10%, where 10%"]),
        ({"usage": 6.0}, ["cut: usage takes 6.0 instructions an event, 3.0 were accepted (+100%"]),
        ({"combine": 50.0}, []),
    ],
)
def test_a_rise_of_more_than_a_tenth_fails(now: dict[str, float], failing: list[str]) -> None:
    found = compare(counts(**now), GCC, SETS)
    assert len(found.failures) == len(failing)
    for message, begin in zip(found.failures, failing, strict=True):
        assert message.startswith(begin)


def test_a_fall_is_told() -> None:
    found = compare(counts(combine=50.0), GCC, SETS)
    assert ["cut: combine takes 50.0" in note for note in found.notes] == [True]


def test_what_is_only_on_one_side_fails() -> None:
    new = compare(counts() | {"spread": {"spread": 70.0}}, GCC, SETS)
    assert new.failures == ["spread: spread takes 70.0 instructions an event, and is not accepted yet"]
    gone = compare({"rate": {"rate": 200.0}}, GCC, SETS)
    assert [message.split(" has ")[0] for message in gone.failures] == ["cut: combine", "cut: usage"]


def test_another_compiler_has_a_wider_limit_and_says_so() -> None:
    """given counts that were accepted for GCC 12 only
    when others are compared
    then another version or clang may take a third more, which is said, and another architecture has to be accepted"""
    for compiler, key in (
        ("GCC: (GNU) 14.2.1 20240912 (Red Hat 14.2.1-3)", "gcc 14"),
        ("clang version 18.1.8", "clang 18"),
    ):
        other = Built("x86_64", compiler)
        assert other.key == f"x86_64 {key}"
        found = compare(counts(rate=200 * LIMIT + 10), other, SETS)
        assert not found.failures
        assert "no counts were accepted for x86_64" in found.notes[0]
        assert compare(counts(rate=280.0), other, SETS).failures
    assert compare(counts(), Built("aarch64", GCC.compiler), SETS).failures == [
        "no counts were accepted for aarch64 yet"
    ]


def test_a_compiler_without_a_version_is_an_error() -> None:
    with pytest.raises(ValueError, match="no version in 'GCC: unknown'"):
        _ = Built("x86_64", "GCC: unknown").key


def test_accepting_replaces_one_set(tmp_path: Path) -> None:
    file, other = tmp_path / "baseline.json", Built("aarch64", GCC.compiler)
    assert load(file) == {}
    accept(GCC, SETS[GCC.key], file)
    accept(other, Accepted(GCC.compiler, "3.3.1", "3.12.1", "2026-11-23", counts(rate=1.0)), file)
    accept(GCC, Accepted(GCC.compiler, "3.3.1", "3.11.7", "2026-11-24", counts(rate=2.0)), file)
    found = load(file)
    assert found[GCC.key].counts["rate"] == {"rate": 2.0}
    assert found[other.key].counts["rate"] == {"rate": 1.0}


def test_every_kernel_is_in_the_baseline() -> None:
    sources = Path(__file__).parents[2] / "src" / "_core"
    for accepted in json.loads(FILE.read_text()).values():
        counted = {kernel for of in accepted["counts"].values() for kernel in of}
        assert counted == {path.stem for path in sources.glob("*.pyx")}
