"""The folder `kernels/` and Hugging Face's package of that name live together, whichever way minillm is reached."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LLAMA = """
import sys, torch, transformers
config = transformers.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                  num_attention_heads=4, num_key_value_heads=2)
with torch.no_grad():
    logits = transformers.LlamaForCausalLM(config).eval()(torch.arange(5)[None]).logits
assert logits.shape == (1, 5, 64) and logits.isfinite().all()
"""


def python(code: str, *path: Path, cwd: Path) -> str:
    """Return the output of `code` in a new Python process with `path` first on `sys.path`."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def hugging_face_stand_in(folder: Path, body: str = "") -> Path:
    """A `kernels` package with one submodule, as it would lie in a site-packages folder."""
    package = folder / "kernels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"from .layer import Device\n__version__ = '9.9'\n{body}\n")
    (package / "layer.py").write_text("class Device: pass\n")
    return folder


@pytest.mark.slow
def test_transformers_works_with_the_root_first_on_the_path(tmp_path: Path) -> None:
    printed = python(LLAMA + "import kernels; print(kernels.__file__)", ROOT, cwd=tmp_path)
    # The trap is really set: unless Hugging Face's package is installed here, plain `kernels` is our folder.
    assert Path(printed).parent == ROOT / "kernels" or "site-packages" in printed


@pytest.mark.slow
def test_minillm_and_transformers_in_one_process(tmp_path: Path) -> None:
    code = (
        "import minillm.kernels" + LLAMA + "print(minillm.kernels.__name__, 'kernels.layer' in sys.modules)"
    )
    assert python(code, ROOT, cwd=tmp_path) == "minillm.kernels False"


def test_hands_over_to_the_other_package(tmp_path: Path) -> None:
    other = hugging_face_stand_in(tmp_path / "site")
    code = (
        "from kernels import Device; import kernels, kernels.layer, minillm.kernels; from pathlib import Path\n"
        "assert kernels.layer.Device is Device and kernels.__version__ == '9.9'\n"
        "print(Path(kernels.__file__).parent.parent, minillm.kernels.__name__, kernels is minillm.kernels)"
    )
    assert python(code, ROOT, other, cwd=tmp_path) == f"{other} minillm.kernels False"


def test_hands_over_when_a_script_inside_the_package_is_run(tmp_path: Path) -> None:
    # `python minillm/cli.py` puts minillm/ on the path, where the link is one more way to the same folder.
    other = hugging_face_stand_in(tmp_path / "site")
    code = "import kernels; print(kernels.__version__)"
    assert python(code, ROOT / "minillm", ROOT, other, cwd=tmp_path) == "9.9"
    assert python(code, ROOT / "minillm", ROOT, cwd=tmp_path) != "9.9"


def test_the_other_package_s_own_error_is_seen(tmp_path: Path) -> None:
    other = hugging_face_stand_in(tmp_path / "site", body="raise ImportError('theirs is broken')")
    code = (
        "import sys\ntry: import kernels\nexcept ImportError as error: print(error, 'kernels' in sys.modules)"
    )
    assert python(code, ROOT, other, cwd=tmp_path) == "theirs is broken False"


def test_a_folder_that_is_no_package_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "site" / "kernels").mkdir(parents=True)
    printed = python("import kernels; print(kernels.__version__)", ROOT, tmp_path / "site", cwd=tmp_path)
    assert printed != "N/A"
