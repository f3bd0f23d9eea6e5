"""Identity of every event, and the split of a batch over the shards.

A shard gets a *selection* (row numbers) of the one shared batch, never a copy of its rows. Events go to a shard by
their fingerprint and not by customer, so that one huge customer cannot make a hot shard; rejected events, which have no
fingerprint, go with the shard that their batch's position picks.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BalanceError
from ..kernels import Identity, Rows, identify, split_by_shard
from ..schema import FLAGS
from .amend import identify_amending, picked_amends
from .batches import Amends, Decoded, Messages, Rejects, no_events
from .shards import shard_name


@dataclass(frozen=True, slots=True)
class Routed:
    """What one shard has to look at of one decoded batch."""

    shard: str
    origin: str
    events: pa.RecordBatch
    """EVENTS."""
    identity: Identity
    rows: Rows
    """The shard's rows of `events`; None for all of them."""
    count: int
    """How many rows those are."""
    rejected: pa.RecordBatch
    """REJECTED."""
    unknown_fields: int = 0
    messages: Messages | None = None
    """With it, `source_positions` says where the events come from."""
    amends: Amends | None = None
    """A text for each of `events`."""
    admitted: bool = False
    """Whether events are accepted though they are older than the horizon."""
    flags: pa.RecordBatch | None = None
    """FLAGS, perhaps of events of other shards too."""

    @property
    def read(self) -> int:
        """Events read from the source that are in here."""
        return self.count + int(self.rejected.num_rows)

    def compact(self) -> "Routed":
        """The same with only the shard's own rows: what is sent to another host, which else gets the whole batch."""
        if self.rows is None:
            return self
        picked = pa.Array.from_buffers(pa.uint32(), self.count, [None, self.rows])

        def of(buffer: pa.Buffer) -> pa.Buffer:
            wide = pa.Array.from_buffers(pa.binary(16), self.events.num_rows, [None, buffer])
            return wide.take(picked).buffers()[1]

        return replace(
            self,
            events=self.events.take(picked),
            identity=Identity(*map(of, self.identity)),
            rows=None,
            amends=picked_amends(self.amends, picked),
            flags=None if self.flags is None else _renumbered(self.flags, picked),
        )


def _renumbered(flags: pa.RecordBatch, picked: pa.UInt32Array) -> pa.RecordBatch | None:
    """FLAGS of the picked rows alone, by their places among them."""
    flags = flags.filter(pc.is_in(flags.column("row"), value_set=picked))
    if not flags.num_rows:
        return None
    places = pc.index_in(flags.column("row"), value_set=picked).cast(pa.uint32())
    return pa.RecordBatch.from_arrays([places, *flags.columns[1:]], schema=FLAGS)


def identified(decoded: Decoded) -> Decoded:
    """The same with the identity of its events, which `route` then needs not compute."""
    identity = identify_amending(decoded.events, decoded.amends)
    return replace(decoded, identity=identity, apart=tuple(map(identified, decoded.apart)))


def route(decoded: Decoded, shards: int) -> Iterator[Routed]:
    """For each part of a batch one `Routed` for each shard that it has anything for.

    Raises BalanceError if decode lost an event.
    """
    for part in decoded.parts:
        yield from _route(part, shards)


def _route(decoded: Decoded, shards: int) -> Iterator[Routed]:
    events, rejected = decoded.events, decoded.rejected
    if decoded.read != events.num_rows + rejected.num_rows:
        raise BalanceError(
            f"{decoded.origin}: {decoded.read} events were read, but {events.num_rows} were decoded and "
            f"{rejected.num_rows} rejected; this is a defect of the decoder, nothing of this batch was counted"
        )
    if not decoded.read:
        return
    identity = decoded.identity or identify_amending(events, decoded.amends)
    home = zlib.crc32(_first_position(decoded).encode()) % shards
    if shards == 1:
        yield Routed(
            shard_name(0),
            decoded.origin,
            events,
            identity,
            None,
            events.num_rows,
            rejected,
            decoded.unknown_fields,
            decoded.messages,
            decoded.amends,
            decoded.admitted,
            decoded.flags,
        )
        return
    for number, (rows, count) in enumerate(split_by_shard(identity.fingerprint, shards)):
        at_home = number == home
        if count or (at_home and rejected.num_rows):
            yield Routed(
                shard_name(number),
                decoded.origin,
                events,
                identity,
                rows,
                count,
                rejected if at_home else rejected.slice(0, 0),
                decoded.unknown_fields if at_home else 0,
                decoded.messages,
                decoded.amends,
                decoded.admitted,
                decoded.flags,
            )


def route_heartbeat(shards: int) -> Iterator[Routed]:
    """A `Routed` without events for every shard."""
    events = no_events()
    identity, rejected = identify(events), Rejects("heartbeat").batch()
    for number in range(shards):
        yield Routed(shard_name(number), "heartbeat", events, identity, None, 0, rejected)


def _first_position(decoded: Decoded) -> str:
    if decoded.rejected.num_rows:
        return str(decoded.rejected.column("source_position")[0].as_py())
    return decoded.origin
