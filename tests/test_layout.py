"""The rules of the house, enforced: who may import whom, no float near money, nothing swallowed, nothing too long.

IMPORTS is the one table of rooms; docs/architecture.md shows it, and a test keeps the two the same.
"""

import ast
import importlib
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOW = ROOT / "src" / "flow"
CORE = ROOT / "src" / "_core"

MODULES = sorted(FLOW.rglob("*.py"))
KERNELS = sorted(CORE.glob("*.pyx"))
HEADERS = sorted(CORE.glob("*.pxd"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# room: (rooms it may import, packages of others). A room imports only rooms above it, so there are no circles.
IMPORTS: dict[str, tuple[str, str]] = {
    "errors": ("", ""),
    "faults": ("", ""),
    "schema": ("", "pyarrow"),
    "rounding": ("", ""),
    "yaml_nodes": ("errors", "yaml"),
    "config_values": ("", "pydantic pydantic_core"),
    "config": ("errors yaml_nodes config_values", "pydantic pydantic_core yaml"),
    "logs": ("config", ""),
    "prices": ("errors schema yaml_nodes", "yaml"),
    "plans": ("errors rounding yaml_nodes", "yaml"),
    "kernels": ("errors schema", "_core pyarrow"),
    "state": ("errors faults schema kernels", "isal numpy pyarrow"),
    "oracle": ("errors schema", ""),
    "adapters": ("errors schema", "pyarrow"),
    "client": ("errors schema state adapters", "confluent_kafka litellm pyarrow"),
    "generate": ("errors schema kernels", "numpy pyarrow"),
    "traces": ("errors schema", "numpy pyarrow"),
    "anomalies": ("schema config kernels", "isal numpy pyarrow"),
    "rules": ("errors schema yaml_nodes prices kernels", "pyarrow yaml"),
    "steps": ("errors faults schema yaml_nodes config anomalies prices state kernels rules", "bytewax numpy pyarrow"),
    "sources": ("errors schema config state generate steps", "bytewax confluent_kafka numpy pyarrow"),
    "store": ("errors schema config", "clickhouse_connect chdb pyarrow"),
    "sinks": ("errors faults schema state kernels steps store", "bytewax pyarrow"),
    "statements": ("errors schema rounding prices steps store", "rich"),
    "reconcile": (
        "errors schema yaml_nodes config prices state adapters kernels steps sources store sinks",
        "numpy pyarrow yaml",
    ),
    "job": ("errors schema config prices state generate rules steps sources sinks reconcile", "bytewax"),
    "metrics": (
        "errors schema config anomalies state steps store sources sinks job reconcile",
        "prometheus_client opentelemetry",
    ),
    "panics": ("errors", ""),
    "start": ("errors panics config prices state store reconcile", "bytewax"),
    "run": ("errors faults panics start config prices state rules steps store sinks job metrics reconcile", "bytewax"),
    "cluster": ("errors config logs prices state start steps store job run", ""),
    "verify": ("errors schema config prices state oracle steps store sinks", "numpy pyarrow"),
    "effect": ("errors schema prices state kernels steps sources", "numpy pyarrow"),
    "trial": ("errors schema prices state kernels rules steps sources", "pyarrow"),
    "rerate": (
        "errors faults schema yaml_nodes config prices state kernels steps store sinks start run verify",
        "numpy pyarrow",
    ),
    "quarantine": ("errors faults schema config prices state rules steps store sinks job", "pyarrow"),
    "amending": ("errors faults schema config prices state kernels steps store sinks job", "numpy pyarrow"),
    "cli": (
        "errors schema rounding adapters "
        "config logs anomalies prices plans state generate traces kernels rules steps sources store statements metrics "
        "start run cluster verify effect trial rerate reconcile quarantine amending",
        "pyarrow rich typer",
    ),
    "__main__": ("cli", ""),
    "bytewax_run": ("cli", "bytewax"),
}

NO_FLOAT_ROOMS = (
    "anomalies",
    "schema",
    "rounding",
    "prices",
    "plans",
    "oracle",
    "kernels",
    "rules",
    "steps",
    "sinks",
    "statements",
    "reconcile",
    "verify",
    "effect",
    "trial",
    "rerate",
)
FLOATS_ALLOWED = {"sinks/publisher.py": "waits between retries, in seconds"}
PATH_NAMES = {"folder", "path", "directory", "parent", "samples"}
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns", "now"}
FLOAT_CALLS = {"timestamp", "total_seconds", "time", "perf_counter", "monotonic"}

LINES_PER_FUNCTION_MAX = 70
LINES_PER_MODULE_MAX = 600
LONGER: dict[str, int] = {}
LONGER_FUNCTIONS: dict[tuple[str, str], int] = {}
"""What is longer, and how long it may be: numbers here only ever fall."""


def room_of(path: Path) -> str:
    return path.relative_to(FLOW).with_suffix("").parts[0]


def name_of(path: Path) -> str:
    return str(path.relative_to(FLOW if path.is_relative_to(FLOW) else ROOT / "src"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, name) of everything a module imports, wherever in it: ours as `flow.room`, others by the top package."""
    package = ["flow", *path.relative_to(FLOW).parts[:-1]]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = base + (node.module.split(".") if node.module else [])
            # `from .. import generate` names rooms behind the import, `from ..generate import x` before it.
            names = [[*module, alias.name] for alias in node.names] if module == ["flow"] else [module]
        else:
            continue
        for parts in names:
            yield node.lineno, ".".join(parts[:2]) if parts[0] == "flow" else parts[0]


def room_names() -> set[str]:
    return {room_of(path) for path in MODULES if path != FLOW / "__init__.py"}


# ---- Who may import whom ----


def test_every_room_is_in_the_table() -> None:
    assert room_names() == set(IMPORTS), "a new room is a new row of IMPORTS, in the order of imports"


def test_a_room_imports_only_rooms_above_it() -> None:
    above: list[str] = []
    for room, (ours, _) in IMPORTS.items():
        assert set(ours.split()) <= set(above), f"{room} would import a room below it"
        above.append(room)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports(path: Path) -> None:
    if path == FLOW / "__init__.py":
        assert not list(imported(path)), "the package itself imports nothing"
        return
    room = room_of(path)
    ours, others = IMPORTS[room]
    allowed = {"flow", f"flow.{room}", "flow.__version__", *(f"flow.{name}" for name in ours.split()), *others.split()}
    wrong = [(line, name) for line, name in imported(path) if name not in allowed | sys.stdlib_module_names]
    assert not wrong, f"{name_of(path)} may not import these; the table is in tests/test_layout.py: {wrong}"


def test_absolute_imports_of_ourselves_are_not_used() -> None:
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").split(".")[0] != "flow", f"{name_of(path)}:{node.lineno}: write it relative"


def test_each_outside_package_has_its_doors() -> None:
    doors: dict[str, set[str]] = {}
    for path in MODULES:
        for _, name in imported(path):
            doors.setdefault(name, set()).add(room_of(path))
    assert doors["_core"] == {"kernels"}
    assert doors["clickhouse_connect"] == {"store"}
    assert doors.get("chdb", {"store"}) == {"store"}


def imports_table() -> str:
    """The table as docs/architecture.md shows it."""
    rows = ["| room | may import | packages of others |", "|---|---|---|"]
    for room, (ours, others) in IMPORTS.items():
        cells = [", ".join(f"`{name}`" for name in names.split()) or "nothing" for names in (ours, others)]
        rows.append(f"| `{room}` | {cells[0]} | {cells[1]} |")
    return "\n".join(rows) + "\n"


def test_the_documented_table_is_this_one() -> None:
    documented = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert imports_table() in documented, f"put this into docs/architecture.md:\n{imports_table()}"


def test_rooms_are_described() -> None:
    documented = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [name_of(path) for path in MODULES if room_of(path) not in ("cli", "traces", "__main__", "__init__")]
    missing = [name for name in missing if not name.startswith("store/queries")]
    missing = [name for name in missing if not name.endswith("__init__.py") and f"{name}`" not in documented]
    assert not missing, f"docs/architecture.md does not say what these are for: {missing}"


# ---- No float near money ----


def floats(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of everything in Python code that is a float or makes one."""
    for node in ast.walk(module):
        match node:
            case ast.Constant(value=float() | complex()):
                yield node.lineno, f"the literal {node.value!r}"
            case ast.Name(id="float"):
                yield node.lineno, "float"
            case ast.Attribute(attr=name) if re.fullmatch(r"(c_)?(float|double)(16|32|64|_)?", name):
                yield node.lineno, f".{name}"
            case ast.BinOp(op=ast.Div()) if not is_exact_division(node):
                yield node.lineno, "/ (write // and name the rounding, or use a Fraction)"
            case ast.AugAssign(op=ast.Div()):
                yield node.lineno, "/="
            case ast.BinOp(op=ast.Pow(), right=ast.UnaryOp(op=ast.USub())):
                yield node.lineno, "** with a negative exponent"
            case ast.Call(func=ast.Attribute(attr=name), args=[]) if name in FLOAT_CALLS:
                yield node.lineno, f".{name}() gives a float"


def is_exact_division(node: ast.BinOp) -> bool:
    """Whether a `/` joins paths (an operand is text, which no number divides, or the first one has a path's name), or
    divides a Fraction."""
    first: ast.expr = node
    while isinstance(first, ast.BinOp):
        if isinstance(first.op, ast.Div) and is_text(first.right):
            return True
        first = first.left
    if isinstance(first, ast.Call):
        first = first.func
    name = first.attr if isinstance(first, ast.Attribute) else first.id if isinstance(first, ast.Name) else ""
    return name in ("Path", "Fraction") or name.lstrip("_") in PATH_NAMES


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) in NO_FLOAT_ROOMS], ids=name_of)
def test_no_float_where_money_is(path: Path) -> None:
    found = list(floats(tree(path)))
    if name_of(path) in FLOATS_ALLOWED:
        assert found, f"{name_of(path)} has no float any more: take it out of FLOATS_ALLOWED"
    else:
        assert not found


@pytest.mark.parametrize(
    "code",
    [
        "x = 0.5",
        "x = float(y)",
        "a / b",
        "total / count",
        "x /= 2",
        "pa.float64()",
        "10 ** -3",
        "event_time.timestamp()",
    ],
)
def test_floats_are_found(code: str) -> None:
    assert list(floats(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["a // b", "self.folder / file.name", "x / 'y' / z", "Path(a) / b", "pa.timestamp('us')"]
)
def test_what_is_no_float_passes(code: str) -> None:
    assert not list(floats(ast.parse(code)))


def native_floats(source: str) -> Iterator[tuple[int, str]]:
    """The same for Cython, where `/` of two C integers is a double, and for the C within it."""
    extern = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line, text = token.start[0], token.string
        number = token.type == tokenize.NUMBER and not text.lower().startswith("0x")
        if token.type == tokenize.NAME:
            extern = text == "extern" or (extern and text == "from")
            if text in ("float", "double"):
                yield line, text
        elif (number and re.search(r"[.eEjJ]", text)) or (token.type == tokenize.OP and text in ("/", "/=")):
            yield line, text
        elif token.type == tokenize.STRING and extern:
            code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
            for match in re.finditer(r"\b(?:float|double)\b|(?<![\w.])\d+(?:\.\d|[eE][+-]?\d)", code):
                yield line, f"{match[0]} in C"
            extern = False


@pytest.mark.parametrize("path", [*KERNELS, *HEADERS], ids=name_of)
def test_no_float_in_kernels(path: Path) -> None:
    assert not list(native_floats(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "code",
    ["cdef double x", "x = 1.5", "x = a / b", "x = 1e3", 'cdef extern from *:\n    """\n    double f(void);\n    """'],
)
def test_native_floats_are_found(code: str) -> None:
    assert list(native_floats(code))


def times_asserted(source: ast.Module) -> Iterator[int]:
    """Lines of asserts on how long something took: on a busy machine anything may take long. One that gives up at a
    deadline is none."""
    for found in (node for node in ast.walk(source) if isinstance(node, ast.Assert)):
        for node in ast.walk(found.test):
            match node:
                case ast.BinOp(op=ast.Sub(), left=ast.Call(func=ast.Attribute(attr=clock))) if clock in CLOCKS:
                    yield found.lineno


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_asserts_a_time(path: Path) -> None:
    assert not list(times_asserted(tree(path)))


def test_times_are_found() -> None:
    assert list(times_asserted(ast.parse("assert time.monotonic() - began < 5")))
    assert list(times_asserted(ast.parse("assert 0 < (clock.now(UTC) - began).total_seconds()")))
    assert not list(times_asserted(ast.parse("assert time.monotonic() < deadline")))


# ---- Nothing swallowed, nothing left to -O ----


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_swallowed(path: Path) -> None:
    broad = {"Exception", "BaseException"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{name_of(path)}:{node.lineno}: bare except"
            named = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
            idle = all(isinstance(line, ast.Pass | ast.Continue | ast.Expr) for line in node.body)
            assert not (named & broad and idle), f"{name_of(path)}:{node.lineno}: swallows every exception"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "suppress":
            named = {name.id for name in node.args if isinstance(name, ast.Name)}
            assert not named & broad, f"{name_of(path)}:{node.lineno}: suppresses every exception"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_an_assert_says_why_it_holds(path: Path) -> None:
    """`python -O` drops asserts: they may tell a type checker what was checked before, and check no input."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assert):
            assert "  # " in lines[node.lineno - 1], f"{name_of(path)}:{node.lineno}: say in a comment who checked it"


# ---- Nothing too long ----


def native_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, lines) of the functions of a .pyx, by indentation."""
    lines = source.splitlines()
    for number, line in enumerate(lines):
        head = re.match(r"( *)(?:def|cdef|cpdef)\b[^=(]*?(\w+)\(", line)
        if not head:
            continue
        end = number + 1
        while not lines[end - 1].split("#")[0].rstrip().endswith(":") and end < len(lines):
            end += 1
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith(head[1] + " ")):
            end += 1
        while not lines[end - 1].strip():
            end -= 1
        yield head[2], number + 1, end - number


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    if path.suffix == ".pyx":
        yield from native_functions(path.read_text(encoding="utf-8"))
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", [*MODULES, *KERNELS], ids=name_of)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    allowed = {name: lines for (module, name), lines in LONGER_FUNCTIONS.items() if module == name_of(path)}
    long = [found for found in functions(path) if found[2] > allowed.get(found[0], LINES_PER_FUNCTION_MAX)]
    assert not long, f"{name_of(path)}: functions of more than {LINES_PER_FUNCTION_MAX} lines: {long}"


@pytest.mark.parametrize("path", [*MODULES, *KERNELS, *HEADERS], ids=name_of)
def test_a_module_is_read_in_one_sitting(path: Path) -> None:
    length = len(path.read_text(encoding="utf-8").splitlines())
    allowed = LONGER.get(name_of(path), LINES_PER_MODULE_MAX)
    assert length <= allowed, f"{name_of(path)}: {length} lines, {allowed} are allowed"


# ---- Kernels: stub, header, oracle ----


def stub_names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The public names a stub declares."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return {name: node for name, node in found.items() if not name.startswith("_")}


def public(owner: object) -> dict[str, object]:
    names = vars(owner)
    return {name: value for name, value in names.items() if not name.startswith("_") and not inspect.ismodule(value)}


@pytest.mark.parametrize("path", KERNELS, ids=name_of)
def test_a_kernel_is_what_its_stub_says(path: Path) -> None:
    module = importlib.import_module(f"_core.{path.stem}")
    declared = stub_names(tree(path.with_suffix(".pyi")).body)
    assert set(declared) == set(public(module))
    for name, node in declared.items():
        thing = getattr(module, name)
        if isinstance(node, ast.FunctionDef):
            assert [arg.arg for arg in node.args.args] == list(inspect.signature(thing).parameters), name
        elif isinstance(node, ast.ClassDef):
            members = stub_names(node.body)
            assert set(members) == set(public(thing)), name


@pytest.mark.parametrize("path", KERNELS, ids=name_of)
def test_a_kernel_names_its_proof(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    imports = re.search(r"^(?:from|cimport|import) ", source, re.MULTILINE)
    header = re.sub(r"\s*\n#?\s*", " ", source[: imports.start()]) if imports else ""
    assert re.search(r"\bns\b|\bus\b", header), "the header says what the kernel costs"
    assert re.search(r"\bMemory\b|\bLayout\b", header), "the header says how the kernel's memory is laid out"
    _, _, proof = header.partition("Proved by")
    proofs = re.findall(r"\b(?:tests|flow)/[\w/]+\.py", proof)
    assert any(name.startswith("tests/") for name in proofs), "the header names the test that proves the kernel"
    assert "oracle" in proof or "plain Python" in proof, "the header names what the kernel is compared with"
    missing = [name for name in proofs if not (ROOT / name).exists() and not (ROOT / "src" / name).exists()]
    assert not missing, f"{name_of(path)} names what is not there: {missing}"


@pytest.mark.parametrize("path", HEADERS, ids=name_of)
def test_a_header_is_shared(path: Path) -> None:
    users = [
        other
        for other in (*KERNELS, *HEADERS)
        if other != path and re.search(rf"from \.{path.stem} cimport", other.read_text(encoding="utf-8"))
    ]
    assert users, "a .pxd that nobody cimports belongs into its .pyx"


def test_each_migration_has_a_number_of_its_own() -> None:
    numbers = [path.name[:3] for path in (FLOW / "store" / "ddl").glob("*.sql")]
    assert len(set(numbers)) == len(numbers), f"two migrations share a number, and one would never run: {numbers}"
