"""The sides of benchmarks that are written in C++, built by the compiler that there is."""

import shutil
import subprocess
from pathlib import Path


def compiled(source: str, folder: Path) -> Path:
    """The program of a source file that lies beside this one, in `folder`. Raises SystemExit without a compiler."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise SystemExit(f"{source} needs a C++ compiler (c++, g++ or clang++), and there is none on PATH")
    path = folder / Path(source).stem
    subprocess.run([compiler, "-O3", "-std=c++17", "-o", str(path), str(Path(__file__).parent / source)], check=True)
    return path
