"""The list of native extensions and their flags; everything else about the package is in pyproject.toml.

Switches (environment): CORE_DEBUG=1 builds without optimisation, with Cython's bounds and overflow checks, and with a
`char` without sign, as on aarch64; CORE_SANITIZE=1 builds with AddressSanitizer and UndefinedBehaviorSanitizer (run
with the ASan runtime preloaded), and CORE_SANITIZE=undefined with the latter alone, which needs nothing preloaded and
lets chdb be loaded besides.
"""

import hashlib
import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("src/_core")
DEBUG = os.environ.get("CORE_DEBUG") == "1"
SANITIZE = os.environ.get("CORE_SANITIZE", "")
if SANITIZE not in ("", "0", "1", "undefined"):
    raise SystemExit(f"CORE_SANITIZE={SANITIZE}: 1 is for ASan and UBSan, `undefined` for UBSan alone, 0 for neither")
SANITIZERS = {"1": "address,undefined", "undefined": "undefined"}.get(SANITIZE)

# -march stays at the portable baseline: one wheel runs on every x86-64-v2 and aarch64 machine.
compile_args = ["-O0", "-g", "-UNDEBUG", "-funsigned-char"] if DEBUG else ["-O3", "-g0"]
compile_args += ["-std=gnu11", "-fno-strict-aliasing", "-Wno-unused-function", "-Wno-unreachable-code"]
if os.uname().machine == "x86_64":
    compile_args.append("-march=x86-64-v2")
link_args = []
if SANITIZERS:
    compile_args += ["-O1", "-g"]  # for true lines in reports; and the checks would be slow to compile with more
    compile_args += [f"-fsanitize={SANITIZERS}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
    link_args += [f"-fsanitize={SANITIZERS}"]

headers = sorted(CORE.glob("*.pxd"))


def source_hash(source: Path) -> str:
    """What an extension was built from; `_core/__init__.py` compares it with the sources beside it."""
    digest = hashlib.sha256()
    for path in [source, *headers]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


extensions = [
    Extension(
        f"_core.{source.stem}",
        [str(source)],
        depends=[str(path) for path in headers],
        define_macros=[("CORE_SOURCE_HASH", f'"{source_hash(source)}"')],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for source in sorted(CORE.glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,  # C's rule for the sign of / and %; int128.pxd says where it matters
            "overflowcheck": False,
            "embedsignature": True,
        },
    )
)
