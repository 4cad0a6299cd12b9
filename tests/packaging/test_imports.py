"""The modules that `import minillm` loads, and the versions that must agree."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported_by(code: str) -> set[str]:
    """The top-level modules that are loaded after running `code` in a new process."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_adds_nothing_heavy() -> None:
    """`import minillm` is quick, and its first name costs little over `import torch`."""
    heavy = {
        "transformers",
        "tokenizers",
        "matplotlib",
        "IPython",
        "ipywidgets",
        "fastapi",
        "uvicorn",
        "rich",
        "scipy",
    }
    assert not (heavy | {"torch", "numpy"}) & imported_by("import minillm")
    assert not heavy & (imported_by("from minillm import LLM, SamplingParams") - imported_by("import torch"))


@pytest.mark.parametrize("first", ["minillm", "minillm.assembly"])
def test_every_public_name_is_there_whichever_module_was_imported_first(first: str) -> None:
    code = (
        f"import {first}, minillm; from minillm import *\n"
        "assert all(getattr(minillm, name) is globals()[name] for name in minillm.__all__)\n"
        "assert set(minillm.__all__) <= set(dir(minillm))\n"
        "assert all(callable(f) for f in (minillm.swap, minillm.perplexity, minillm.LLM))"
    )
    assert imported_by(code)


def test_a_name_that_is_not_there_raises() -> None:
    minillm = pytest.importorskip("minillm")
    with pytest.raises(AttributeError, match="module 'minillm' has no attribute 'LMM'"):
        minillm.LMM  # noqa: B018


def test_base_dependencies() -> None:
    names = {re.split(r"[^a-z-]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert names == {"torch", "triton", "transformers", "safetensors", "gguf", "numpy", "tqdm", "rich"}
    assert set(PROJECT["optional-dependencies"]) == {"course", "serve", "dev"}


def test_constraints_pin_every_requirement() -> None:
    packaging = pytest.importorskip("packaging.requirements")
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = {}
    for requirement in map(packaging.Requirement, filter(None, lines)):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        pinned[re.sub(r"[-_.]+", "-", requirement.name).lower()] = specifier.version
    assert (pinned["torch"], pinned["triton"]) == ("2.13.0", "3.7.1")
    asked = PROJECT["dependencies"] + [
        name for extra in PROJECT["optional-dependencies"].values() for name in extra
    ]
    for requirement in map(packaging.Requirement, asked):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert requirement.specifier.contains(pinned[name]), (
            f"{requirement} but constraints.txt has {pinned[name]}"
        )


def test_version_is_one() -> None:
    minillm = pytest.importorskip("minillm")
    assert getattr(minillm, "__version__", PROJECT["version"]) == PROJECT["version"]
