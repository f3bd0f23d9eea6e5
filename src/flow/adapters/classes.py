"""The classes that providers count in, and the disjoint meters (DESIGN 3.1) that they come to.

Providers count in classes that overlap: `prompt_tokens` holds the cached tokens, these hold the cached audio. A row of
`tables.py` says which field adds to which class. CLASSES says what one unit of a class adds to the meters: a class
that is part of another takes from the other's meter what it adds to its own. A sum over all classes is then a sum over
disjoint meters, whatever a provider happens to include where.
"""

from collections.abc import Collection, Mapping

CLASSES: dict[str, dict[str, int]] = {
    # What goes in. `input` is everything, however it is read, kept or encoded.
    "input": {"input_tokens": 1},
    "input_text": {},  # what input_tokens stand for, unless a class below says otherwise
    "input_audio": {"input_audio_tokens": 1, "input_tokens": -1},
    "input_image": {"input_image_tokens": 1, "input_tokens": -1},
    "input_video": {"input_video_tokens": 1, "input_tokens": -1},
    # Read from a cache: part of `input`, and of the class of the same encoding.
    "cached_input": {"cached_input_tokens": 1, "input_tokens": -1},
    "cached_text": {},
    "cached_audio": {
        "cached_input_audio_tokens": 1,
        "cached_input_tokens": -1,
        "input_audio_tokens": -1,
        "input_tokens": 1,
    },
    "cached_image": {
        "cached_input_image_tokens": 1,
        "cached_input_tokens": -1,
        "input_image_tokens": -1,
        "input_tokens": 1,
    },
    "cached_video": {
        "cached_input_video_tokens": 1,
        "cached_input_tokens": -1,
        "input_video_tokens": -1,
        "input_tokens": 1,
    },
    # Written to a cache: part of `input`. Kept for five minutes is the rule, for hours has prices of its own.
    "cache_write": {"cache_write_tokens": 1, "input_tokens": -1},
    "cache_write_5m": {},
    "cache_write_1h": {"cache_write_1h_tokens": 1, "cache_write_tokens": -1},
    "cache_write_12h": {"cache_write_12h_tokens": 1, "cache_write_tokens": -1},
    # Brought in by a tool that the provider ran: part of `input`. What is not text counts by its encoding instead.
    "tool_input": {"tool_input_tokens": 1, "input_tokens": -1},
    "tool_text": {},
    "tool_audio": {"tool_input_tokens": -1, "input_tokens": 1},
    "tool_image": {"tool_input_tokens": -1, "input_tokens": 1},
    "tool_video": {"tool_input_tokens": -1, "input_tokens": 1},
    # What comes out. `output` is everything.
    "output": {"output_tokens": 1},
    "output_text": {},
    "output_audio": {"output_audio_tokens": 1, "output_tokens": -1},
    "output_image": {"output_image_tokens": 1, "output_tokens": -1},
    "output_video": {"output_video_tokens": 1, "output_tokens": -1},
    "reasoning": {"reasoning_tokens": 1, "output_tokens": -1},
    "citation": {"citation_tokens": 1, "output_tokens": -1},
    # What is no token.
    "web_search": {"web_search_requests": 1},
    "web_fetch": {"web_fetch_requests": 1},
    "search_unit": {"search_units": 1},
    "image": {"images": 1},
    "classification": {"classifications": 1},
    "document_page": {"documents_processed": 1},
    "audio_second": {"audio_seconds": 1},
    # Counted in no meter: what a provider says that input and output come to, which is compared with them.
    "total": {},
}

FOLDS: dict[str, str] = {
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "input_video_tokens": "input_tokens",
    "tool_input_tokens": "input_tokens",
    "cached_input_tokens": "input_tokens",
    "cached_input_audio_tokens": "cached_input_tokens",
    "cached_input_image_tokens": "cached_input_tokens",
    "cached_input_video_tokens": "cached_input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "cache_write_12h_tokens": "cache_write_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
    "output_video_tokens": "output_tokens",
    "reasoning_tokens": "output_tokens",
    "citation_tokens": "output_tokens",
}
"""The meter that each finer meter is a part of: whose price holds where the finer one has none."""


def meters_of(gross: Mapping[str, int]) -> dict[str, int]:
    """Disjoint quantities from overlapping ones, {class: quantity} to {meter: quantity}; a meter may come out below 0,
    which says that the classes contradict each other."""
    meters: dict[str, int] = {}
    for name, quantity in gross.items():
        for meter, sign in CLASSES[name].items():
            meters[meter] = meters.get(meter, 0) + sign * quantity
    return meters


def fold(meters: Mapping[str, int], wanted: Collection[str]) -> dict[str, int]:
    """The same quantities in `wanted` meters: one that is not wanted is added to the meter it is a part of.

    What has no wanted meter above it keeps the meter that it is a part of in the end (`input_tokens`, ...).
    """
    folded: dict[str, int] = {}
    for name, quantity in meters.items():
        meter = name
        while meter not in wanted and meter in FOLDS:
            meter = FOLDS[meter]
        folded[meter] = folded.get(meter, 0) + quantity
    return folded
