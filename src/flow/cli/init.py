"""`tallyflow init`: a config, prices, rules and ten events to begin with."""

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError, TallyflowError

_EVENTS: tuple[tuple[str, str, str, str, str, str, dict[str, int]], ...] = (
    # id, time, customer, project, feature, model, usage
    ("ev-01", "2026-11-01T12:00:00Z", "acme", "search", "chat", "gpt-4o-mini",
     {"input_tokens": 900, "cached_input_tokens": 300, "output_tokens": 95}),
    ("ev-02", "2026-11-01T12:00:04.250Z", "acme", "search", "summaries", "gpt-4o",
     {"input_tokens": 12_400, "output_tokens": 810}),
    ("ev-03", "2026-11-01T12:00:59.999999Z", "globex", "support", "chat", "claude-3-5-haiku",
     {"input_tokens": 2_048, "output_tokens": 512}),
    ("ev-04", "2026-11-01T13:01:00+01:00", "globex", "support", "chat", "claude-3-5-haiku",
     {"input_tokens": 2_560, "cached_input_tokens": 2_048, "output_tokens": 301}),
    ("ev-05", "2026-11-01T12:02:30Z", "acme", "research", "reasoning", "deepseek-r1",
     {"input_tokens": 700, "output_tokens": 150, "reasoning_tokens": 6_200}),
    ("ev-06", "2026-11-01T12:05:00Z", "initech", "reports", "batch", "llama-3.3-70b",
     {"input_tokens": 48_000, "output_tokens": 9_000}),
    ("ev-07", "2026-11-01T12:05:01Z", "initech", "reports", "batch", "mistral-large",
     {"input_tokens": 1, "output_tokens": 0}),
    ("ev-08", "2026-11-02T00:00:00Z", "acme", "search", "chat", "gpt-4o-mini",
     {"input_tokens": 1_000_000, "output_tokens": 20_000}),
    # A retry: the same source and id, sent again with a time of its own. It is counted once.
    ("ev-01", "2026-11-01T12:00:07Z", "acme", "search", "chat", "gpt-4o-mini",
     {"input_tokens": 900, "cached_input_tokens": 300, "output_tokens": 95}),
    # A model that has no price: kept, shown as unpriced, never billed as 0.
    ("ev-09", "2026-11-02T08:30:00Z", "globex", "support", "chat", "model-without-a-price",
     {"input_tokens": 120, "output_tokens": 40}),
)  # fmt: skip


def init(
    folder: Annotated[Path, typer.Argument(help="Where to put it; made if it is not there.")] = Path(),
) -> None:
    """Writes a commented starter config, a price book, a rule book and ten sample events. Overwrites nothing."""
    samples = resources.files("flow") / "samples"
    texts = {
        folder / "config.yaml": (samples / "config.yaml").read_text(encoding="utf-8"),
        folder / "prices.yaml": (samples / "prices.yaml").read_text(encoding="utf-8"),
        folder / "rules.yaml": (samples / "rules.yaml").read_text(encoding="utf-8"),
        folder / "events" / "sample.ndjson": sample_events(),
    }
    there = [path for path in texts if path.exists() or path.is_symlink()]
    if there:
        raise ConfigError([f"{path}: is there already; init overwrites nothing" for path in there])
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        message = f"{error.filename or folder}: cannot be written: {error.strerror}; choose another folder"
        raise TallyflowError(message) from None
    for path in texts:
        typer.echo(f"wrote {path}", err=True)
    config = folder / "config.yaml"
    typer.echo(
        f"\nNext:\n"
        f"  tallyflow doctor -c {config}     check the set-up\n"
        f"  tallyflow run {config}           bill the sample events\n"
        f"  tallyflow invoice acme --period 2026-11 -c {config}",
        err=True,
    )


def sample_events() -> str:
    """NDJSON: by turns a CloudEvents envelope and the flat form."""
    lines = []
    for n, (id_, time, customer, project, feature, model, usage) in enumerate(_EVENTS):
        about = {
            "project": project,
            "feature": feature,
            "model": model,
            "region": "eu-west-1",
            "service_tier": "standard",
            "usage": usage,
        }
        event: dict[str, Any] = {"id": id_, "source": "gateway/eu-1", "time": time}
        if n % 2 == 0:
            event = {"specversion": "1.0", "type": "llm.usage", **event, "subject": customer, "data": about}
        else:
            event = {**event, "customer": customer, **about}
        lines.append(json.dumps(event, separators=(",", ":")) + "\n")
    return "".join(lines)
