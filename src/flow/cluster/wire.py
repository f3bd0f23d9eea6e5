"""What the supervisors of several hosts say to each other: one JSON object a line, over TCP.

No password and no encryption, as on the connections of Bytewax beside it: see docs/operating.md. Unlike those it
carries no pickled objects, and nothing of a config but a checksum.
"""

import json
import select
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ..errors import ClusterError, TallyflowError
from ..run import Share
from ..start import Claim
from ..state.directory import Lineage
from ..store.fence import Term
from .crew import Attempt, Failure, Kind, Look, Quiet

BEAT_S = 0.2
"""How often each side says something, whether or not there is anything to say."""
SEND_S = 5.0
CLOSE_S = 2.0
MESSAGE_BYTES_MAX = 4 << 20

Message = dict[str, Any]


class WireLost(Exception):
    """The other side is gone, or can be reached no more; the message goes on behind its name."""


class Wire:
    """A connection to the supervisor of another host."""

    def __init__(self, connection: socket.socket, allowed_s: int) -> None:
        """`allowed_s`: longer silence means that the other side is gone."""
        connection.settimeout(SEND_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._allowed_s = allowed_s
        self._quiet = Quiet()
        self._rest = b""
        self._heard = 0
        self._ended = False
        self._sent_at = 0.0

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message. Raises WireLost."""
        try:
            self._connection.sendall(json.dumps({"kind": kind, **content}).encode() + b"\n")
        except OSError as error:
            raise WireLost(f"is out of reach ({error.strerror or error})") from error
        self._sent_at = time.monotonic()

    def beat(self, kind: str, **content: Any) -> None:
        """Sends a message unless one was sent just now. Raises WireLost."""
        if time.monotonic() >= self._sent_at + BEAT_S:
            self.send(kind, **content)

    def receive(self) -> list[Message]:
        """The messages that have come; does not wait for any. Raises WireLost."""
        try:
            while not self._ended and select.select([self._connection], [], [], 0)[0]:
                piece = self._connection.recv(1 << 16)
                self._ended = not piece
                self._rest += piece
        except OSError as error:
            raise WireLost(f"is out of reach ({error.strerror or error})") from error
        *lines, self._rest = self._rest.split(b"\n")
        if self._ended and not lines:
            raise WireLost("has gone")
        self._heard += len(lines)
        quiet_s = self._quiet.look(self._heard)
        if quiet_s > self._allowed_s:
            raise WireLost(f"has been silent for {round(quiet_s)} s")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            raise WireLost("is no supervisor of Tallyflow") from None
        if len(self._rest) > MESSAGE_BYTES_MAX or not all(isinstance(one, dict) for one in messages):
            raise WireLost("is no supervisor of Tallyflow")
        return messages

    def close(self) -> None:
        """Ends the connection at once."""
        self._connection.close()

    def finish(self) -> None:
        """Ends the connection when the other side has heard all and ended it too, or does not answer."""
        # Closed with something unread, a connection is reset, and what was sent last is lost with it.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            self._connection.settimeout(CLOSE_S)
            while self._connection.recv(1 << 16):
                pass
        self.close()


# ---- Messages -----------------------------------------------------------------------------------------------------


def attempt_message(attempt: Attempt) -> Message:
    return asdict(attempt)


def attempt_of(message: Message) -> Attempt:
    claim = message["claim"]
    return Attempt(
        message["number"],
        Claim(Lineage(**claim["lineage"]), Term(**claim["term"]), claim["last_blocks"]),
        message["holder"],
        tuple(message["addresses"]),
    )


def look_message(look: Look) -> Message:
    message: Message = {"steps": look.steps, "waiting_bytes": look.waiting_bytes, "running": look.running}
    if look.failure is not None:
        message["failure"] = {
            "kind": look.failure.kind,
            "reason": look.failure.reason,
            "error": error_message(look.failure.error),
            "final": look.failure.final,
        }
    if look.shares is not None:
        message["shares"] = [vars(share) for share in look.shares]
    return message


def look_of(message: Message) -> Look:
    failure, shares = message.get("failure"), message.get("shares")
    if failure is not None:
        failure = Failure(Kind(failure["kind"]), failure["reason"], error_of(failure["error"]), failure["final"])
    if shares is not None:
        shares = [Share(**{**share, "totals": Counter(share["totals"])}) for share in shares]
    return Look(message["steps"], message["waiting_bytes"], message["running"], failure, shares)


def error_message(error: TallyflowError | None) -> Message | None:
    return None if error is None else {"exit_code": error.exit_code, "text": str(error)}


def error_of(message: Message | None) -> TallyflowError | None:
    """The error of another host: its words and its exit code."""
    if message is None:
        return None
    error = ClusterError(message["text"])
    error.exit_code = message["exit_code"]
    return error
