"""minillm as a wheel, an editable install and an uninstalled tree: the same package, every file once, no more."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "minillm" / "models").glob("*/*"))
WHERE = "import minillm, minillm.kernels, sys; print(minillm.__file__, minillm.kernels.__file__, sep='\\n')"


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}"
    return result.stdout.strip()


def pip(*arguments: str | Path, cwd: Path) -> str:
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is installed from, so that building leaves nothing in the repository."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("minillm", "kernels"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    # The repository has this at its root, and no wheel may have it.
    (tree / "tests").mkdir()
    (tree / "tests" / "test_nothing.py").write_text("")
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="builds a wheel without the network")
    folder = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, tree, cwd=tree)
    (built,) = folder.glob("minillm-*.whl")
    return built


def sources(folder: str) -> set[str]:
    """The Python files under a folder of the repository, by the names under which a wheel has them."""
    under = ROOT / folder
    package = "minillm/kernels" if folder == "kernels" else folder
    files = (path.relative_to(under).as_posix() for path in under.rglob("*.py"))
    return {f"{package}/{file}" for file in files}


def test_uninstalled_tree(tree: Path) -> None:
    package, kernels = run(sys.executable, "-c", WHERE, cwd=tree, PYTHONPATH="").splitlines()
    assert Path(package) == tree / "minillm" / "__init__.py"
    assert Path(kernels).resolve() == tree / "kernels" / "__init__.py"


def test_every_folder_with_modules_is_a_package() -> None:
    """Else the wheel would leave it out while the source tree works."""
    folders = {path.parent for path in (ROOT / "minillm").rglob("*.py")}
    assert not [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()]


def test_kernels_is_a_link() -> None:
    link = ROOT / "minillm" / "kernels"
    assert link.is_symlink() and link.resolve() == ROOT / "kernels", (
        "minillm/kernels must be a symbolic link to ../kernels; where git made a text file of it, "
        "set `git config core.symlinks true` and check it out again"
    )


@pytest.mark.slow
def test_wheel_has_each_file_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"minillm"}
    assert {name for name in names if name.endswith(".py")} == sources("minillm") | sources("kernels")
    assert {"minillm/py.typed", "minillm/player/player.js"} <= set(names)
    assert {path.relative_to(ROOT).as_posix() for path in MODELS} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_installs_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip("install", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    package, kernels = run(sys.executable, "-c", WHERE, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()
    assert Path(package) == site / "minillm" / "__init__.py"
    assert Path(kernels) == site / "minillm" / "kernels" / "__init__.py"
    assert not (site / "kernels").exists(), "this would overwrite Hugging Face's package"
    for path in MODELS:
        assert (site / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_editable_install(tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="builds without the network")
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=tmp_path)
    (python,) = tmp_path.glob("env/bin/python")
    (site,) = tmp_path.glob("env/lib/python*/site-packages")
    # torch and the rest from here; a .pth file in there (our own editable install) is not followed
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", python, "install", "--no-deps", "--no-build-isolation", "-e", tree, cwd=tmp_path)
    package, kernels = run(python, "-c", WHERE, cwd=tmp_path, PYTHONPATH="").splitlines()
    assert Path(package) == tree / "minillm" / "__init__.py"
    assert Path(kernels).resolve() == tree / "kernels" / "__init__.py"
    assert (tmp_path / "env" / "bin" / "minillm").exists()
