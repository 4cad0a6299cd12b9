"""`tools/find-python.sh`: which interpreter `make` takes, and what it says when there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FITS = "exit 0"
OLD = "echo 'Python 3.9.2: minillm needs 3.11, 3.12 or 3.13' >&2; exit 1"


def find(folder: Path, purpose: str, given: str = "", **pythons: str) -> subprocess.CompletedProcess[str]:
    """Run the script where these fake interpreters are the only ones there are."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "tail").symlink_to(shutil.which("tail") or "/usr/bin/tail")
    for name, body in pythons.items():
        program = programs / name.replace("_", ".")
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    command = ["/bin/sh", str(ROOT / "tools" / "find-python.sh"), purpose, given]
    return subprocess.run(
        command, cwd=folder, env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )


def test_takes_the_first_that_fits(tmp_path: Path) -> None:
    assert find(tmp_path, "venv", python3=OLD, python3_12=FITS, python3_13=FITS).stdout == "python3.12\n"


def test_none_at_all(tmp_path: Path) -> None:
    result = find(tmp_path, "venv")
    assert (result.returncode, result.stdout) == (1, "")
    assert "needs Python 3.11, 3.12 or 3.13" in result.stderr
    assert "none of them on the PATH" in result.stderr and "make PYTHON=" in result.stderr


def test_says_why_each_was_refused(tmp_path: Path) -> None:
    result = find(tmp_path, "venv", python3=OLD, python="exit 1")
    assert result.returncode == 1
    assert "python3: Python 3.9.2: minillm needs 3.11, 3.12 or 3.13" in result.stderr


def test_the_one_given_is_the_only_one(tmp_path: Path) -> None:
    result = find(tmp_path, "venv", given="no such python", python3=FITS)
    assert result.returncode == 1
    assert "no such python: no such program" in result.stderr


@pytest.mark.parametrize(
    ("missing", "told"), [("ensurepip", "sudo apt install python3."), ("venv", "without the module venv")]
)
def test_a_python_without_venv(tmp_path: Path, missing: str, told: str) -> None:
    # Debian's python3 without python3-venv: `import venv` works there, `import ensurepip` does not.
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / f"{missing}.py").write_text(
        f"raise ModuleNotFoundError('none', name={missing!r})"
    )
    lacking = f'PYTHONPATH={tmp_path / "lacking"} exec {sys.executable} "$@"'
    result = find(tmp_path, "venv", python3=lacking)
    assert result.returncode == 1
    assert told in result.stderr


def test_this_python_fits(tmp_path: Path) -> None:
    assert find(tmp_path, "venv", given=sys.executable).stdout == f"{sys.executable}\n"


def test_torch_with_a_device_before_torch_without(tmp_path: Path) -> None:
    assert find(tmp_path, "torch", python3="exit 3", python="exit 0").stdout == "python\n"


def test_torch_without_a_device_will_do(tmp_path: Path) -> None:
    result = find(tmp_path, "torch", python3="echo no torch >&2; exit 1", python="exit 3")
    assert result.stdout == "python\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_stops_with_the_message(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = ["make", "setup", "PYTHON=/nowhere/python3"]
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "/nowhere/python3: no such program" in result.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_wheel_removes_only_what_setuptools_left() -> None:
    """build/ also holds what tools/tinytales has made, hours of it."""
    command = ["make", "-n", "wheel"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    removed = [line.split()[2:] for line in result.stdout.splitlines() if line.startswith("rm ")]
    assert removed == [["build/lib", "build/bdist.*"]]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("index", ["", "cpu"])
def test_an_installation_that_fails_says_what_to_do(tmp_path: Path, index: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\n[ "$3" = --version ] || { echo "no network" >&2; exit 1; }\n')
    python.chmod(0o755)
    command = ["make", "setup", f"TORCH_INDEX={index}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "no network\nThe installation did not finish" in result.stderr
    assert "Run the same command again" in result.stderr
    assert result.stderr.count("no network") == 1, "the second pip is not tried after the first one failed"
    assert not (tmp_path / ".venv" / ".minillm-installed").exists()
