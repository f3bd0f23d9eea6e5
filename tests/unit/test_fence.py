"""The fence: the last to start may publish, nobody else."""

import pytest

from flow.errors import TakenOver
from flow.store import StoreClient
from flow.store.fence import Term, check_term, take_term


def test_a_term_holds_until_another_is_taken(client: StoreClient) -> None:
    first = take_term(client, "a")
    other = take_term(client, "b")
    check_term(client, first)
    second = take_term(client, "a")
    assert (first.number, second.number, other.number) == (1, 2, 1)
    for term in (second, other):
        check_term(client, term)
    with pytest.raises(TakenOver, match=r"taken over lineage a \(pid \d+ on .*, term 2; this one had term 1\)") as stop:
        check_term(client, first)
    assert "\n" not in str(stop.value)


def test_of_two_that_took_the_same_term_one_goes_on(client: StoreClient) -> None:
    ours = take_term(client, "a")
    client.command(f"INSERT INTO fence (lineage, term, holder) VALUES ('a', {ours.number}, 'z, which sorts last')")
    with pytest.raises(TakenOver, match="z, which sorts last"):
        check_term(client, ours)
    check_term(client, Term("a", ours.number, "z, which sorts last"))


def test_a_term_whose_row_is_gone_does_not_hold(client: StoreClient) -> None:
    term = take_term(client, "a")
    client.command("TRUNCATE TABLE fence")
    with pytest.raises(TakenOver, match="gone from the table fence; was the store emptied or replaced"):
        check_term(client, term)
