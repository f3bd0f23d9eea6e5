"""`tallyflow rejected`: events that could not be counted, what is wrong with them, and the way back."""

import base64
import csv
import io
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import load_config
from ..errors import ConfigError, EventError
from ..prices.values import instant_text
from ..quarantine.json_text import parse
from ..quarantine.payload import Edit
from ..quarantine.redriving import Done, Quarantine, Signature, edits, whole
from ..statements.render import printable
from ..store import check_schema, connect
from ..store.queries.rejected import (
    STATUSES,
    Filter,
    Group,
    Note,
    RejectedEvent,
    groups,
    notes,
    payload_slices,
)
from ..store.queries.rejected import rejected as rejected_events
from .options import ConfigOption, Format, FormatOption, FormatOrCsv, FormatOrCsvOption, instants_us

SHOWN_BYTES = 4096

rejected = typer.Typer(help="Rejected events: what is wrong with them, and their way back.", no_args_is_help=True)


@rejected.callback()
def _rejected() -> None:
    pass


ForOption = Annotated[list[str] | None, typer.Option("--for", help="Rejected for this reason; may be repeated.")]
AtOption = Annotated[str, typer.Option("--at", help="Their source position begins so.")]
FromOption = Annotated[str | None, typer.Option("--from", help="Seen from this instant on.")]
ToOption = Annotated[str | None, typer.Option("--to", help="Seen before this instant.")]
TextOption = Annotated[str, typer.Option("--text", help="This stands in the detail, whatever its case.")]
StatusOption = Annotated[list[str] | None, typer.Option("--status", help=f"One of {', '.join(STATUSES)}.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most so many events.")]
AuthorOption = Annotated[str, typer.Option(help="Who changes it.")]
ReasonOption = Annotated[str, typer.Option(help="Why, or a link to it.")]


def _filter(
    for_: list[str] | None,
    at: str,
    from_: str | None,
    to: str | None,
    text: str,
    status: list[str] | None,
    position: str | None = None,
) -> Filter:
    """Raises ConfigError with all that is wrong."""
    unknown = [name for name in status or [] if name not in STATUSES]
    problems = [f"--status: {name!r} is none of {', '.join(STATUSES)}" for name in unknown]
    start_us, end_us = instants_us({"--from": from_, "--to": to}, problems)
    if problems:
        raise ConfigError(problems)
    return Filter(tuple(for_ or ()), at, position, start_us, end_us, text, tuple(status or ()))


# ---- list ---------------------------------------------------------------------------------------------------------


@rejected.command("list")
def list_(
    config: ConfigOption,
    for_: ForOption = None,
    at: AtOption = "",
    from_: FromOption = None,
    to: ToOption = None,
    text: TextOption = "",
    status: StatusOption = None,
    limit: LimitOption = 50,
    format_: FormatOrCsvOption = FormatOrCsv.TABLE,
) -> None:
    """Rejected events by reason, then one by one, with what has become of them."""
    asked = _filter(for_, at, from_, to, text, status)
    with connect(load_config(config).store, readonly=True) as client:
        check_schema(client)
        found = groups(client, asked)
        rows = rejected_events(client, asked, limit)
    if format_ is FormatOrCsv.JSON:
        answer = {"reasons": [_plain_group(group) for group in found], "events": [_plain(row) for row in rows]}
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif format_ is FormatOrCsv.CSV:
        out = io.StringIO()
        writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_plain, rows))
        typer.echo(out.getvalue(), nl=False)
    elif not found:
        typer.echo("Nothing was rejected." if asked == Filter() else "No rejected event is like that.")
    else:
        _print_list(found, rows, Console())


def _plain_group(group: Group) -> dict[str, Any]:
    return {
        "reason": group.reason,
        "events": group.events,
        "can_go_back": group.can_go_back,
        "first_seen": f"{group.first_seen:%Y-%m-%dT%H:%M:%S.%fZ}",
        "last_seen": f"{group.last_seen:%Y-%m-%dT%H:%M:%S.%fZ}",
        "example": group.example,
    }


_COLUMNS = ["seen_at", *(field.name for field in fields(RejectedEvent) if field.name != "seen_at_us")]


def _plain(event: RejectedEvent) -> dict[str, Any]:
    plain = asdict(event)
    return {"seen_at": instant_text(plain.pop("seen_at_us")), **plain}


def _status(event: RejectedEvent) -> str:
    return f"rejected again: {event.rejected_again_for}" if event.rejected_again_for else event.status


def _print_list(found: list[Group], rows: list[RejectedEvent], console: Console) -> None:
    table = Table(title="rejected events", title_justify="left")
    table.add_column("reason", overflow="fold")
    for name in ("events", "can go back"):
        table.add_column(name, justify="right")
    for name in ("first seen", "last seen"):
        table.add_column(name)
    table.add_column("for example", overflow="fold")
    for group in found:
        seen = (f"{time:%Y-%m-%d %H:%M}" for time in (group.first_seen, group.last_seen))
        table.add_row(group.reason, f"{group.events:,}", f"{group.can_go_back:,}", *seen, _cell(group.example))
    console.print(table)
    table = Table()
    for name in ("seen", "source position", "reason", "detail"):
        table.add_column(name, overflow="fold")
    table.add_column("bytes", justify="right")
    table.add_column("status", overflow="fold")
    for event in rows:
        cells = map(_cell, (event.source_position, event.reason, event.detail))
        table.add_row(instant_text(event.seen_at_us), *cells, f"{event.payload_bytes:,}", _status(event))
    console.print(table)
    events = sum(group.events for group in found)
    if events > len(rows):
        console.print(f"The first {len(rows):,} of {events:,} events; --limit shows more, and --for, --at, ... others.")


def _cell(text: str) -> Text:
    return Text(printable(text))


# ---- show ---------------------------------------------------------------------------------------------------------


@rejected.command()
def show(
    position: Annotated[str, typer.Argument(help="The source position of the event.")],
    config: ConfigOption,
    bytes_max: Annotated[int, typer.Option("--bytes", min=0, help="At most so much of a payload.")] = SHOWN_BYTES,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the whole payload there, as it was.")] = None,
    format_: FormatOption = Format.TABLE,
) -> None:
    """One rejected event: its original bytes, what is wrong with it, and what has become of it since."""
    with connect(load_config(config).store, readonly=True) as client:
        check_schema(client)
        found = rejected_events(client, Filter(position=position), 2)
        if not found:
            raise ConfigError(f"{position}: no rejected event has this source position; `rejected list` shows them")
        event = found[-1]
        done = notes(client, event)
        payload = b"".join(payload_slices(client, event, bytes_max))
        if out is not None:
            with out.open("wb") as file:
                file.writelines(payload_slices(client, event))
    if format_ is Format.JSON:
        answer = _plain(event) | _payload(payload) | {"notes": [_plain_note(note, bytes_max) for note in done]}
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    console = Console()
    shown = {"position": event.source_position, "seen": instant_text(event.seen_at_us)}
    shown |= {"reason": event.reason, "detail": event.detail, "status": _status(event)}
    if event.inbox_position:
        shown["came back as"] = event.inbox_position
    for name, value in shown.items():
        console.print(Text(f"{name:>14}  ").append_text(_cell(value)), soft_wrap=True)
    for note in done:
        who = f"{note.what} at {instant_text(note.created_us)} by {note.author}: {note.reason}"
        console.print(Text(f"{'':>14}  ").append_text(_cell(who)), soft_wrap=True)
        if note.what == "fixed":
            console.print(_readable(note.payload[:bytes_max]), soft_wrap=True)
    console.print(f"\nThe original, {event.payload_bytes:,} bytes:")
    console.print(_readable(payload), soft_wrap=True)
    if event.payload_bytes > len(payload):
        console.print(f"... its first {len(payload):,} bytes; --out writes all of them to a file.")


def _payload(payload: bytes) -> dict[str, str]:
    """As text where it is text, else in base64."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def _plain_note(note: Note, bytes_max: int) -> dict[str, str]:
    what = {"what": note.what, "at": instant_text(note.created_us), "author": note.author, "reason": note.reason}
    return what | _payload(note.payload[:bytes_max])


def _readable(payload: bytes) -> Text:
    return _cell(payload.decode("utf-8", "backslashreplace"))


# ---- fix and redrive ----------------------------------------------------------------------------------------------


@rejected.command()
def fix(
    config: ConfigOption,
    position: Annotated[str | None, typer.Argument(help="The source position of one event.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="data.model=gpt-4o-mini for text, usage.images:=3 for other JSON.")
    ] = None,
    unset: Annotated[list[str] | None, typer.Option(help="Take this field out.")] = None,
    with_: Annotated[
        str | None, typer.Option("--with", help="A file that has the event whole; - for standard input.")
    ] = None,
    author: AuthorOption = "",
    reason: ReasonOption = "",
    for_: ForOption = None,
    at: AtOption = "",
    from_: FromOption = None,
    to: ToOption = None,
    text: TextOption = "",
    limit: LimitOption = 100_000,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Keep a corrected payload, if a run would accept it; `redrive` puts it in. The original stays as it is."""
    asked = _filter(for_, at, from_, to, text, None, position)
    by = Signature(author, reason)
    changes = _edits(set_ or [], unset or [])
    if asked == Filter():
        raise ConfigError("fix: name an event by its source position, or many by --for, --at, --from, --to or --text")
    if bool(changes) == (with_ is not None):
        raise ConfigError("fix: give either --set and --unset, or --with FILE")
    if with_ is not None and position is None:
        raise ConfigError("--with: is one event; name the one that it is for by its source position")
    with Quarantine(load_config(config)) as quarantine:
        change = edits(changes, quarantine.limits) if with_ is None else whole(_given(with_))
        done = quarantine.fix(asked, limit, change, by)
    _tell(done, "fixed", format_)
    if done.refused and not done.events:
        raise EventError("nothing was fixed: a run would not accept any of it")


def _given(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"--with: {name}: cannot be read: {error.strerror or error}") from error


def _edits(set_: list[str], unset: list[str]) -> list[Edit]:
    """Raises ConfigError."""
    found = [Edit(tuple(name.split(".")), None) for name in unset]
    for given in set_:
        name, equals, value = given.partition("=")
        if not equals or not name.rstrip(":"):
            raise ConfigError(f"--set: {given!r} is not field=text, nor field:=JSON")
        try:
            new = parse(value) if name.endswith(":") else value
        except ValueError as error:
            raise ConfigError(f"--set: {value!r} is not JSON ({error}); write field=text for text") from None
        found.append(Edit(tuple(name.rstrip(":").split(".")), new))
    return found


@rejected.command()
def redrive(
    config: ConfigOption,
    position: Annotated[str | None, typer.Argument(help="The source position of one event.")] = None,
    author: AuthorOption = "",
    reason: ReasonOption = "",
    for_: ForOption = None,
    at: AtOption = "",
    from_: FromOption = None,
    to: ToOption = None,
    text: TextOption = "",
    status: StatusOption = None,
    limit: LimitOption = 100_000,
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would go back, and change nothing.")] = False,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Put fixed events, and those that a run would accept by now, back in, each once; the next run reads them."""
    asked = _filter(for_, at, from_, to, text, status, position)
    settings = load_config(config)
    if dry:
        with Quarantine(settings, dry=True) as quarantine:
            done = quarantine.would_redrive(asked, limit)
    else:
        by = Signature(author, reason)
        with Quarantine(settings) as quarantine:
            done = quarantine.redrive(asked, limit, by)
    _tell(done, "would go back" if dry else "put into the inbox", format_)


def _tell(done: Done, what: str, format_: Format) -> None:
    if format_ is Format.JSON:
        answer = {
            "events": done.events,
            "refused": dict(done.refused),
            "back_before": dict(done.back_before),
            "beyond_limit": done.beyond_limit,
            "files": done.files,
            "problems": [
                {"source_position": p.event.source_position, "reason": p.reason, "detail": p.detail}
                for p in done.problems
            ],
        }
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    console = Console()
    if done.problems:
        table = Table(title="still wrong", title_justify="left")
        for name in ("source position", "reason", "detail"):
            table.add_column(name, overflow="fold")
        for problem in done.problems:
            table.add_row(*map(_cell, (problem.event.source_position, problem.reason, problem.detail)))
        console.print(table)
    refused, before = sum(done.refused.values()), sum(done.back_before.values())
    said = [f"{done.events:,} {what}"]
    if refused:
        reasons = ", ".join(f"{count:,} {name}" for name, count in done.refused.most_common())
        said.append(f"{refused:,} a run would still reject ({reasons})")
    if before:
        since = ", ".join(f"{count:,} {name}" for name, count in done.back_before.most_common())
        said.append(f"{before:,} went back before ({since})")
    if done.beyond_limit:
        said.append(f"{done.beyond_limit:,} are beyond --limit")
    if not (done.events or refused or before or done.beyond_limit):
        said = ["No rejected event is like that"]
    console.print(_cell("; ".join(said) + "."), soft_wrap=True)
