"""The fence: of all processes that ever published a lineage, only the one that started last may go on.

The lock on the state directory keeps a second process out on one machine. It cannot reach a process that was
frozen with its host, and replaced: that one wakes up later with its outbox and its connection, and does not know.
So every run takes a term in the store, higher than any before, and the publisher asks around each block whether
its term is still the highest.

What is left is a process that is frozen between the question and its insert: it may deliver the rest of one block,
which was frozen and is inserted under its token, as the successor on the same state inserts it too.
"""

import os
import socket
import uuid
from dataclasses import dataclass

from ..errors import TakenOver
from .client import StoreClient


@dataclass(frozen=True, slots=True)
class Term:
    """The right to publish a lineage, until a higher one is taken."""

    lineage: str
    number: int
    holder: str


def take_term(client: StoreClient, lineage: str) -> Term:
    """Takes a term that is higher than any of the lineage; who had it until now can publish no more.

    Raises StoreUnavailable, StoreError; TakenOver if another process took one at the same moment and comes first.
    """
    number = highest_term(client, lineage)
    # The last part makes it unique: process ids repeat, and so do host names of containers.
    term = Term(lineage, number + 1, f"pid {os.getpid()} on {socket.gethostname()} ({uuid.uuid4().hex[:8]})")
    client.command(
        "INSERT INTO fence (lineage, term, holder) VALUES ({lineage:String}, {term:UInt64}, {holder:String})",
        {"lineage": lineage, "term": term.number, "holder": term.holder},
    )
    check_term(client, term)
    return term


def check_term(client: StoreClient, term: Term) -> None:
    """Returns if the term is the highest of its lineage. Raises TakenOver, StoreUnavailable, StoreError."""
    number, holder = _highest(client, term.lineage)
    if (number, holder) == (term.number, term.holder):
        return
    if (number, holder) > (term.number, term.holder):
        raise TakenOver(
            f"store {client.label}: another process has taken over lineage {term.lineage} ({holder}, term {number}; "
            f"this one had term {term.number}); this one stops, and nothing was lost: see that only one of them is "
            "started again"
        )
    raise TakenOver(
        f"store {client.label}: the row of term {term.number} of lineage {term.lineage} is gone from the table fence; "
        "was the store emptied or replaced? This run stops, and nothing was lost"
    )


def highest_term(client: StoreClient, lineage: str) -> int:
    """The highest term that was ever taken; 0 where none was. Raises StoreUnavailable, StoreError."""
    return _highest(client, lineage)[0]


def _highest(client: StoreClient, lineage: str) -> tuple[int, str]:
    """The highest term and its holder; (0, "") where none was ever taken."""
    found = client.rows(
        "SELECT term, holder FROM fence WHERE lineage = {lineage:String} ORDER BY term DESC, holder DESC LIMIT 1",
        {"lineage": lineage},
    )
    return (int(found[0][0]), str(found[0][1])) if found else (0, "")
