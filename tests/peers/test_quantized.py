"""vLLM loads the folders that we export, and gives a text the same log-probabilities as minillm.

vLLM 0.32 on a CPU has no kernel for 8-bit weights in the format pack-quantized (W8A16), and its kernel for 4 bits takes
bfloat16 only. PEER_FOLDERS (paths, joined by ":") names folders of other programs to compare too.
"""

import os
import sys
from pathlib import Path

import pytest

from minillm import LLM
from minillm.llm import model_folder
from minillm.quantization.export import export
from tests.peers.test_vllm import ROOT, VLLM, results_of, write_report

pytestmark = pytest.mark.peer

SCRIPT = ROOT / "tests/peers/quantized.py"
# The dtype of vLLM's activations (ours are float32), and the largest mean distance of two log-probabilities, twice what
# was measured. vLLM divides activations of 8 bits by 127, and we divide by 127.5.
FORMATS = {"int4": ("bfloat16", 0.007), "w8a8": ("float32", 0.02), "fp8": ("float32", 0.002)}
TOLERANCE_OF_OTHERS = 0.03
VERSIONS = {}  # of each engine that ran
OTHERS = [Path(path) for path in os.environ.get("PEER_FOLDERS", "").split(os.pathsep) if path]


@pytest.fixture(scope="module", autouse=True)
def vllm_is_there():
    if not VLLM.exists():
        pytest.skip("vLLM is not installed: run `make peers`")


@pytest.fixture(scope="module")
def report():
    rows = []
    yield rows
    write_report("peers-quantized", VERSIONS, rows, {name: bound for name, (_, bound) in FORMATS.items()})


def exported(quantization, tmp_path):
    with LLM("tinytales", quantization=quantization, max_model_len=64) as llm:
        export(llm.model, model_folder("tinytales"), tmp_path / quantization)
    return tmp_path / quantization


def run(engine, python, tmp_path, folder, dtype):
    environment = {"PEER_MODEL": str(folder), "PEER_DTYPE": dtype}
    found = results_of(engine, python, tmp_path, SCRIPT, **environment)
    VERSIONS[engine] = found["versions"]
    return found["scripts"]["quantized"]


def distance(folder, dtype, tmp_path):
    """The mean distance of the text's log-probabilities, and whether both go on with the same text."""
    ours, theirs = (
        run(engine, python, tmp_path, folder, wanted)
        for engine, python, wanted in (("minillm", sys.executable, "float32"), ("vllm", VLLM, dtype))
    )
    for found in (ours, theirs):
        assert "error" not in found, found["error"]
    (one,), (other,) = ours["outputs"], theirs["outputs"]
    assert one["prompt_token_ids"] == other["prompt_token_ids"]
    both = [
        abs(mine[str(token)][0] - yours[str(token)][0])
        for token, mine, yours in zip(
            one["prompt_token_ids"][1:], one["prompt_logprobs"][1:], other["prompt_logprobs"][1:], strict=True
        )
    ]
    return sum(both) / len(both), one["outputs"][0]["text"] == other["outputs"][0]["text"]


@pytest.mark.parametrize("quantization", FORMATS)
def test_vllm_loads_our_folder(quantization, tmp_path, report):
    dtype, bound = FORMATS[quantization]
    found, same_text = distance(exported(quantization, tmp_path), dtype, tmp_path)
    report.append({"name": quantization, "dtype": dtype, "mean_distance": found, "same_text": same_text})
    assert found <= bound and same_text


def test_vllm_has_no_cpu_kernel_for_8_bit_weights_alone(tmp_path, report):
    """This one fails when vLLM gets a kernel. Then W8A16 moves up to `FORMATS`."""
    found = run("vllm", VLLM, tmp_path, exported("int8", tmp_path), "bfloat16")
    assert "Quant type (uint8b128) not supported by CPUWNA16" in found["error"]
    report.append({"name": "int8", "refused": "Quant type (uint8b128) not supported by CPUWNA16"})


@pytest.mark.parametrize("folder", OTHERS, ids=[path.name for path in OTHERS])
def test_both_load_a_folder_of_another_program(folder, tmp_path, report):
    found, same_text = distance(folder, "bfloat16", tmp_path)
    report.append({"name": folder.name, "mean_distance": found, "same_text": same_text})
    assert found <= TOLERANCE_OF_OTHERS
