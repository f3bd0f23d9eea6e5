"""What documents promise is there: a test for each of the 33 faults, and the messages that operating.md explains."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
FAULTS = set(range(1, 34))


def named_in(path: Path) -> list[str]:
    return re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def faults_of(test: str) -> set[int]:
    """The faults that a test names: `test_row_5_...`, `test_rows_7_and_8_...`, `test_rows_1_to_3_...`."""
    named = re.match(r"test_rows?_(\d+)(?:_(to|and)_(\d+))?_", test)
    if named is None:
        return set()
    first, word, last = int(named[1]), named[2], int(named[3] or named[1])
    return {first, last} if word == "and" else set(range(first, last + 1))


def lines() -> dict[int, str]:
    """The line of the table for each fault."""
    section = TEXT.split("## Faults and their outcome")[1].split("\n## ")[0]
    found = [(int(line.split()[1]), line) for line in section.splitlines() if re.match(r"\| \d", line)]
    assert len(dict(found)) == len(found), "a fault has two lines"
    return dict(found)


def test_each_fault_has_a_line_which_names_a_file_with_a_test_of_it() -> None:
    assert lines().keys() == FAULTS
    for fault, line in lines().items():
        files = [ROOT / path for path in re.findall(r"`(tests/[\w/]+\.py)`", line)]
        assert any(fault in faults_of(test) for path in files for test in named_in(path)), line


def test_each_test_of_a_fault_is_in_a_file_that_its_line_names() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for test in named_in(path):
            for fault in faults_of(test):
                assert f"`{path.relative_to(ROOT)}`" in lines()[fault], f"{path.name}::{test}"


def test_what_is_named_is_there() -> None:
    for path in re.findall(r"`((?:tests|benchmarks|flow)/[\w/.]+)", TEXT):
        assert (ROOT / path).exists() or (ROOT / "src" / path).exists(), path


def test_messages_that_operating_explains_are_said() -> None:
    table = (
        (ROOT / "docs" / "operating.md").read_text(encoding="utf-8").split("## What stops a job")[1].split("\n## ")[0]
    )
    messages = [
        said for line in table.splitlines() if "|" in line for said in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src" / "flow").rglob("*.py")))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # texts that are written in several lines
    assert len(messages) > 20
    for said in messages:
        assert said.removesuffix("...").strip() in code, said
