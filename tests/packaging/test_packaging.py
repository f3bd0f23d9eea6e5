"""What a user installs: a checkout and its wheel, each into an environment of its own, away from the sources.

The dependencies are not installed again: the new environments look into the one that runs the tests. Kernels are built
with CORE_DEBUG=1, which takes a quarter of the time; the optimised build is the one that all other tests run on.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that must not see the sources of this checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLUMNS")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | {"CORE_DEBUG": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def checked(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = run(*command, cwd=cwd, **environment)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(*arguments: str | Path, cwd: Path, python: Path | None = None, **environment: str) -> list[str | Path]:
    into = ["--python", python] if python is not None else []
    return [sys.executable, "-m", "pip", *into, "--disable-pip-version-check", "--no-input", *arguments]


def copy_of_the_tree(to: Path) -> Path:
    """A checkout in which nothing was compiled; what Cython has made of kernels is not made again."""
    shutil.copytree(ROOT / "src", to / "src", ignore=BUILT)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, to / name)
    return to


def new_environment(folder: Path) -> Path:
    """A virtual environment, and its Python; it finds the packages of the present one behind its own.

    A .pth file within a folder that another .pth file names is not read, so an editable install is not seen through it.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


def check_it_works(python: Path, away: Path) -> None:
    """The installed command bills the sample events and answers for them."""
    away.mkdir()
    tallyflow = python.with_name("tallyflow")
    where = checked(python, "-c", "import flow, _core; print(flow.__file__, _core.__file__)", cwd=away)
    assert all(path.startswith(str(python.parents[1])) for path in where.split())
    assert re.fullmatch(r"tallyflow \d+\.\d+\.\d+\n", checked(tallyflow, "--version", cwd=away))
    checked(tallyflow, "init", "demo", cwd=away)
    checked(tallyflow, "run", "demo/config.yaml", cwd=away)
    invoice = json.loads(
        checked(tallyflow, "invoice", "acme", "--period=2026-11", "--format=json", "-c", "demo/config.yaml", cwd=away)
    )
    assert invoice["currency"] == "USD"
    balance = checked(
        *(tallyflow, "sql", "SELECT sum(read), sum(accepted), sum(duplicate) FROM pipeline_balance"),
        *("--format=csv", "-c", "demo/config.yaml"),
        cwd=away,
    )
    assert balance.splitlines()[1] == "10,9,1"


@pytest.mark.slow
def test_pip_installs_a_checkout_and_its_wheel_has_all_it_needs_and_works(tmp_path: Path) -> None:
    """One test, since the wheel is built of what was compiled for the install."""
    tree = copy_of_the_tree(tmp_path / "tree")
    python = new_environment(tmp_path / "env")
    install = ("install", "--no-deps", "--no-build-isolation", "--ignore-installed", ".")
    checked(*pip(*install, cwd=tree, python=python), cwd=tree)
    check_it_works(python, tmp_path / "away")

    checked(*pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ".", cwd=tree), cwd=tree)
    (wheel,) = tmp_path.glob("*.whl")
    check_its_names(zipfile.ZipFile(wheel).namelist())
    python = new_environment(tmp_path / "env_of_wheel")
    checked(
        *pip("install", "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=tmp_path, python=python),
        cwd=tmp_path,
    )
    check_it_works(python, tmp_path / "away_with_wheel")


def check_its_names(names: list[str]) -> None:
    """All that runs is in a wheel, and none of the sources of kernels."""
    for path in (ROOT / "src").rglob("*"):
        if path.suffix in (".py", ".pyi", ".pxd", ".sql", ".yaml", ".typed") and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT / "src")) in names
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for kernel in (ROOT / "src" / "_core").glob("*.pyx"):
        assert f"_core/{kernel.stem}{suffix}" in names
    assert not [name for name in names if name.endswith((".c", ".pyx"))]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    ["def broken(:\n", 'cdef extern from *:\n    """\n    #error "no such thing"\n    """\n'],
    ids=["cython", "c"],
)
def test_a_build_that_fails_fails_the_install(damage: str, tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    for kernel in (tree / "src" / "_core").glob("*.pyx"):
        if kernel.stem != "hash":
            kernel.unlink()
    with (tree / "src" / "_core" / "hash.pyx").open("a") as kernel:
        kernel.write("\n" + damage)
    python = new_environment(tmp_path / "env")
    install = ("install", "--no-deps", "--no-build-isolation", "--ignore-installed", ".")
    done = run(*pip(*install, cwd=tree, python=python), cwd=tree)
    assert done.returncode != 0
    assert "hash" in done.stdout + done.stderr
    assert not list((tmp_path / "env" / "lib").glob("python*/site-packages/flow"))


@pytest.mark.parametrize("name", ["hash.pyx", "int128.pxd"])
def test_a_stale_extension_is_noticed_at_import(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.egg-info"))
    source = str(tmp_path / "src")
    checked(sys.executable, "-c", "import flow.kernels", cwd=tmp_path, PYTHONPATH=source)
    with (tmp_path / "src" / "_core" / name).open("a") as file:
        file.write("\n# changed\n")
    done = run(sys.executable, "-c", "import flow.kernels", cwd=tmp_path, PYTHONPATH=source)
    assert done.returncode != 0
    assert re.search(r"\.so is stale: \w+\.pyx .*has changed since; run `make build`", done.stderr), done.stderr


def test_a_native_package_from_elsewhere_is_refused(tmp_path: Path) -> None:
    """`_core` is a common name: another one on the path must not be taken for ours."""
    shutil.copytree(ROOT / "src" / "_core", tmp_path / "_core", ignore=shutil.ignore_patterns("__pycache__", "*.c"))
    path = f"{tmp_path}{os.pathsep}{ROOT / 'src'}"
    done = run(sys.executable, "-c", "import flow.kernels", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode != 0
    assert "is not the native part of" in done.stderr, done.stderr
