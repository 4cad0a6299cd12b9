"""The engine on a GPU against itself on a CPU, and in bfloat16 against its own float32 scores."""

import pytest
import torch

from minillm import LLM, SamplingParams
from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import NoCache

pytestmark = pytest.mark.gpu
PROMPTS = [
    "Once upon a time",
    "The fox",
    "One cold morning, a baker called",
    "It was raining in the valley and nobody",
]
GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)


@pytest.fixture(scope="module")
def on_cpu() -> LLM:
    return LLM("tinytales", device="cpu")


def test_float32_writes_the_same_greedy_tokens_as_a_cpu(on_cpu: LLM) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    with LLM("tinytales", device="cuda", dtype="float32") as llm:
        ours, theirs = (one.generate(PROMPTS, GREEDY) for one in (llm, on_cpu))
    assert [o.outputs[0].token_ids for o in ours] == [o.outputs[0].token_ids for o in theirs]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_chooses_what_float32_thinks_likeliest(on_cpu: LLM, dtype: str) -> None:
    """Each token is the reference's argmax given the tokens before it, or within 0.2 of its logprob."""
    with LLM("tinytales", device="cuda", dtype=dtype) as llm:
        outputs = llm.generate(PROMPTS, GREEDY)
    for output in outputs:
        ids = output.prompt_token_ids + output.outputs[0].token_ids
        batch = Batch.of([Chunk(ids, 0, [0])], 1024)
        hidden = on_cpu.model(batch, NoCache(on_cpu.model.config, 1024))
        logprobs = on_cpu.model.logits(hidden).log_softmax(-1)
        start = len(output.prompt_token_ids) - 1
        chosen = logprobs[start:-1].gather(1, torch.tensor(ids[start + 1 :])[:, None])[:, 0]
        assert (logprobs[start:-1].max(-1).values - chosen).max() <= 0.2


def test_the_same_seed_draws_the_same_numbers_on_both(on_cpu: LLM) -> None:
    params = SamplingParams(temperature=0.8, seed=5, max_tokens=24, ignore_eos=True)
    with LLM("tinytales", device="cuda", dtype="float32") as llm:
        ours, theirs = (one.generate(PROMPTS, params) for one in (llm, on_cpu))
    same = [o.outputs[0].token_ids[0] == t.outputs[0].token_ids[0] for o, t in zip(ours, theirs, strict=True)]
    assert all(same)


def test_loading_and_running_do_not_keep_memory() -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with LLM("tinytales", device="cuda") as llm:
        llm.generate(PROMPTS, GREEDY)
    del llm
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < 2**20
