"""Native parser, exact reader and oracle say the same of lines that are damaged, and of a form that is known."""

import json
import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.compare import NARROW, NOW_US, WIDE
from tests.fuzz.messages import PIECES, damaged, lines_of

from flow.kernels import LineParser
from flow.schema import DIMENSIONS

from .decode_lines import CLOUD_EVENT, CORRECTIONS, FLAT, TABLE, agree_alone, check, flat

# --- mutations -------------------------------------------------------------------------------------------

SEEDS = [line if isinstance(line, bytes) else line.encode() for line, _ in TABLE + CORRECTIONS if len(line) < 700]


def mutated(rng):
    """A line of the table, perhaps with its members in another order, perhaps damaged."""
    line = rng.choice(SEEDS) if rng.random() < 0.6 else rng.choice((CLOUD_EVENT, FLAT)).encode()
    if rng.random() < 0.2:
        line = swapped_values(line, rng)
    return damaged(line, rng) if rng.random() < 0.85 else line


def swapped_values(line, rng):
    """The members of the top object in another order, one of them with another's value."""
    try:
        members = list(json.loads(line).items())
    except (ValueError, AttributeError):
        return line
    rng.shuffle(members)
    if members and rng.random() < 0.5:
        name = rng.choice(members)[0]
        members.append((name + rng.choice(("", "", "x")), rng.choice(members)[1]))
    text = ",".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members)
    return b"{" + text.encode("utf-8", "surrogatepass") + b"}"


def fuzz(seed, lines):
    rng = random.Random(seed)
    for start in range(0, lines, 200):
        batch = [mutated(rng) for _ in range(min(200, lines - start))]
        check(b"\n".join(batch), rng.choice((NARROW, NARROW, WIDE)), offset=start)
        for line in batch[:20]:
            for piece in line.split(b"\n"):
                if piece.strip(b" \t\r"):
                    agree_alone(piece, NARROW)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_lines(seed):
    fuzz(seed, 4000)


@pytest.mark.parametrize("seed", range(15))
def test_lines_of_producers(seed):
    # `make fuzz` does the same with millions
    rng = random.Random(seed)
    check(b"\n".join(lines_of(rng, 200)), rng.choice((NARROW, WIDE)))


# --- lines of a form that is known -----------------------------------------------------------------------


def parsed(chunk, limits=NARROW):
    """The parser at the first line that it hands over, or at the end."""
    parser = LineParser(
        chunk,
        0,
        event_bytes_max=limits.event_bytes_max,
        string_bytes_max=limits.string_bytes_max,
        quantity_max=limits.quantity_max,
        meters_max=limits.meters_per_event_max,
        time_max_us=NOW_US,
    )
    parser.run()
    return parser


def test_a_form_is_learnt_once():
    # given two producers whose lines alternate, then all but the first of each are read by their forms
    flat_line = flat(id='"1"', model='"m"', usage='{"a":1,"b":"22"}')
    parser = parsed("\r\n".join([CLOUD_EVENT, flat_line] * 50 + [" " * 64]).encode())
    assert (parser.events, parser.known_lines) == (100, 98)


def test_columns_are_handed_over_once():
    parser = parsed(CLOUD_EVENT.encode())
    columns = parser.columns()
    for again in (parser.columns, parser.run, partial(parser.append, b"a", 0, [b""] * 7, [(b"t", 1)])):
        with pytest.raises(ValueError, match="handed over"):
            again()
    assert bytes(columns["id_text"]) == b"7f3c"


def test_forms_beyond_those_that_are_kept():
    # given more forms than are kept or learnt, in turn, then every line is still read
    lines = [flat(**{f"x{n % 90}": str(n)}, usage=f'{{"m{n % 7}":{n}}}') for n in range(400)]
    expected = check("\n".join(lines).encode())
    assert (len(expected.events), expected.unknown_fields) == (400, 400)


@pytest.mark.parametrize(
    "line", [CLOUD_EVENT, flat(customer='"acme"', usage='{"t":12,"u":"7"}')], ids=["cloud", "flat"]
)
def test_a_known_form_with_one_byte_changed(line):
    line = line.encode()
    changed = [line]
    for at in range(len(line)):
        changed += [line[:at] + byte + line[at + 1 :] for byte in (b'"', b"\\", b"}", b"0", b"x", b"\x1f", b"\xc3")]
        changed += [line[:at] + line[at + 1 :], line]
    check(b"\n".join(changed))


def test_values_of_every_length_in_a_known_form():
    lines = [flat(id=f'"{"i" * n}"', customer=f'"{"c" * n}"', usage=f'{{"t":{"9" * n}}}') for n in range(1, 42)]
    check("\n".join(flat() + "\n" + line for line in lines).encode())
    check("\n".join(flat() + "\n" + line for line in lines).encode(), WIDE)


def test_a_time_of_zeros_is_no_minute():
    check((flat(time='"' + "\\u0000" * 17 + '00Z"') + "\n").encode() * 2, WIDE)


@settings(max_examples=150, derandomize=True)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=30))
def test_lines_from_pieces(pieces):
    check(b"".join(pieces))


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "specversion",
        "id",
        "source",
        "time",
        "type",
        "customer",
        "subject",
        *DIMENSIONS[1:],
        "usage",
        "data",
        "x",
    ]
)


@settings(max_examples=200, derandomize=True)
@given(st.dictionaries(NAMES, VALUES, max_size=8), st.booleans(), st.booleans())
def test_objects_of_any_values(fields, enveloped, ascii_only):
    line = json.loads(CLOUD_EVENT if enveloped else FLAT) | fields
    try:
        text = json.dumps(line, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    check(text)
