"""The rule of layers bites: the contract in pyproject.toml refuses an import upwards and a room without a place."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("importlinter", reason="import-linter is part of the dev extra")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as lint; lint()",
        "--no-cache",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def project(folder: Path, **modules: str) -> Path:
    """A package of that name with these modules, under the contracts of the real one."""
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (folder / "minillm").mkdir()
    (folder / "minillm" / "__init__.py").write_text("")
    for name, source in modules.items():
        (folder / "minillm" / f"{name}.py").write_text(source)
    return folder


def test_the_package_keeps_the_rule() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_import_downwards_passes(tmp_path: Path) -> None:
    result = lint(project(tmp_path, llm="from minillm import config\n", config=""))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        (
            {"config": "from minillm import llm\n", "llm": ""},
            "minillm.config is not allowed to import minillm.llm",
        ),
        ({"attic": ""}, "minillm.attic"),
        ({"engine": "from minillm import LLM\n"}, "minillm.engine is not allowed to import minillm"),
    ],
    ids=["upwards", "without a place", "the front door"],
)
def test_the_contract_refuses(tmp_path: Path, modules: dict[str, str], complaint: str) -> None:
    result = lint(project(tmp_path, **modules))
    assert result.returncode == 1, result.stdout + result.stderr
    assert complaint in re.sub(r"\s+", " ", result.stdout)


def test_the_order_is_the_one_written_down() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    order = " → ".join(re.sub("[()]", "", layer) for layer in contract["layers"] if "__main__" not in layer)
    assert order in re.sub(r"\s+", " ", (ROOT / "CONTRIBUTING.md").read_text())
