"""Our methods are as good as llm-compressor's, and cost less; its folders give the same logits here as in transformers.

`make peers` installs llm-compressor into an environment of its own and runs these tests.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from minillm.llm import model_folder
from minillm.model.stored import open_model
from minillm.quantization.calibration import WholeTexts, whole_texts
from minillm.quantization.schemes import scheme_for
from tests.peers.test_vllm import ROOT, write_report

pytestmark = pytest.mark.peer

PYTHON = ROOT / ".peers/llm-compressor-0.14.0.1/bin/python"
METHODS = "int8 int4 w8a8 fp8 nvfp4 mxfp4 smoothquant gptq gptq-act-order awq".split()
NEAREST = ("int8", "int4", "w8a8", "fp8", "mxfp4")  # both sides round to nearest, by the same rule
LARGEST_KL_RATIO = 1.05  # the upper end of its 95 % interval
LARGEST_CPU_RATIO = {"gptq": 1 / 2, "gptq-act-order": 1 / 2, "awq": 1 / 6}
PARTS = {
    "qkv": ("self_attn.q", "self_attn.k", "self_attn.v"),
    "o": ("self_attn.o",),
    "gate_up": ("mlp.gate", "mlp.up"),
    "down": ("mlp.down",),
}
TEXT = "One day a girl named Mia found a red kite in the garden. It was stuck in a tall tree, far too high."


@pytest.fixture(scope="module", autouse=True)
def compressor_is_there():
    if not PYTHON.exists():
        pytest.skip("llm-compressor is not installed: run `make peers`")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Run the benchmark, or what is left of it, and keep its results."""
    out = tmp_path_factory.mktemp("against") / "rows.json"
    command = [
        sys.executable,
        ROOT / "benchmarks/against_llm_compressor.py",
        "--python",
        PYTHON,
        "--json",
        out,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    limits = {"kl_ratio": LARGEST_KL_RATIO, "cpu_ratio": LARGEST_CPU_RATIO}
    versions = {"llmcompressor": "0.14.0.1", "torch": torch.__version__, **found["about"]}
    write_report("peers-llm-compressor", versions, found["rows"], limits)
    return {row["name"]: row for row in found["rows"]}


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


@pytest.mark.parametrize("method", METHODS)
def test_our_method_is_as_good(method, rows):
    mean, _, high = rows[method]["kl_ratio"]
    assert high <= LARGEST_KL_RATIO
    if method in NEAREST:
        assert mean == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("method", LARGEST_CPU_RATIO)
def test_our_method_costs_less(method, rows):
    assert rows[method]["cpu_ratio"] <= LARGEST_CPU_RATIO[method]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders that llm-compressor wrote from the bundled model as it is stored, by method."""
    work = tmp_path_factory.mktemp("folders")
    names = ("int4", "int8", "w8a8", "fp8")
    jobs = [{"method": name, "windows": [], "out": str(work / name)} for name in names]
    request = work / "request.json"
    request.write_text(json.dumps({"model": str(model_folder("tinytales")), "jobs": jobs}))
    command = [PYTHON, ROOT / "tests/peers/llm_compressor.py", request]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=environment(PYTHONPATH="", HF_HUB_OFFLINE="1"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: work / name for name in names}


def loaded(folder):
    stored = open_model(folder)
    return stored.weights(
        torch.device("cpu"), torch.float32, scheme=scheme_for(stored.quantization_config, None)
    )


def both(folder):
    """Return a folder's model here and in transformers, in float32."""
    stored = open_model(folder)
    scheme = scheme_for(stored.quantization_config, None)
    ours = stored.weights(torch.device("cpu"), torch.float32, scheme=scheme)
    return ours, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokens():
    return open_model(model_folder("tinytales")).tokenizer().encode(TEXT)


def log_probs(model, tokens):
    with torch.inference_mode():
        return model.logits(model(whole_texts([tokens]), WholeTexts(model.config))).log_softmax(-1)


def divergence(p, q):
    return (p.exp() * (p - q)).sum(-1).mean().item()


def divergence_from_rounding(model, tokens, draws=8):
    """Return the largest KL that a relative noise of 1e-6 in the embeddings makes.

    Such a noise moves a few activations to the next 8-bit number. That changes the later layers, and more activations.
    """
    exact, embed, found = log_probs(model, tokens), model.embed, []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)

        def noisy(batch, generator=generator):
            x = embed(batch)
            return x * (1 + 1e-6 * torch.randn(x.shape, generator=generator))

        model.embed = noisy
        found.append(divergence(exact, log_probs(model, tokens)))
    model.embed = embed
    return max(found)


@pytest.mark.parametrize("name", ["int4", "int8", "w8a8", "fp8"])
def test_its_folder_gives_the_logits_of_transformers(name, folders, tokens):
    model, other = both(folders[name])
    with torch.inference_mode():
        theirs = other(torch.tensor([tokens])).logits[0].log_softmax(-1)
    ours = log_probs(model, tokens)
    if name in ("int4", "int8"):
        assert torch.allclose(ours, theirs, atol=1e-3)
    else:
        assert divergence(theirs, ours) <= 2 * divergence_from_rounding(model, tokens)


@pytest.mark.parametrize("name", ["int4", "int8", "w8a8", "fp8"])
def test_each_projection_of_its_folder_gives_the_outputs_of_transformers(name, folders, tokens):
    """Compare one projection at a time: an FP8 activation that rounds the other way changes all layers after it."""
    model, other = both(folders[name])
    seen = {}
    for path, module in other.named_modules():
        module.register_forward_hook(lambda _, x, y, path=path: seen.update({path: (x, y)}))
    with torch.inference_mode():
        other(torch.tensor([tokens]))
        for layer, block in enumerate(model.weights.blocks):
            projections = {}
            block.with_projections(lambda role, one, found=projections: found.setdefault(role, one))
            for role, parts in PARTS.items():
                paths = [f"model.layers.{layer}.{part}_proj" for part in parts]
                ours = projections[role](seen[paths[0]][0][0][0], model.ops)
                theirs = torch.cat([seen[path][1][0] for path in paths], 1)
                assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
