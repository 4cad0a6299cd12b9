"""SmolLM2-135M-Instruct with drafts: the same tokens as without, greedy and sampled.

`make real` downloads the model and runs these tests. No other command does.
"""

from collections.abc import Iterator

import pytest

from minillm import LLM, SamplingParams
from tests.real.test_smollm2 import MODEL
from tests.speculative.test_equality import assert_equal_or_tied

pytestmark = pytest.mark.real

TOPICS = [
    "the sea", "a fox", "gravity", "bread", "Paris", "a list of fruits", "the moon", "a train", "prime numbers", "rain",
]  # fmt: skip
PROMPTS = [f"{start} {topic}" for topic in TOPICS for start in ("Write about", "Repeat three times:")]
CONFIGS = {
    "ngram": {"method": "ngram", "num_speculative_tokens": 4},
    "suffix": {"method": "suffix", "num_speculative_tokens": 4},
}
PARAMS = [
    SamplingParams(temperature=0.7 * (i % 4 == 1), seed=i, max_tokens=40, ignore_eos=True)
    for i in range(len(PROMPTS))
]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    if not MODEL.exists():
        pytest.fail(f"{MODEL} is missing: run `make real`, which downloads it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILLM_LINEAR", "reference")  # the fastest products depend on the number of rows
        one = LLM(MODEL, max_num_seqs=8, max_model_len=256)
    with one:
        yield one


@pytest.mark.parametrize("method", CONFIGS)
def test_the_tokens_are_those_without_speculation(llm: LLM, method: str) -> None:
    conversations = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    expected = llm.chat(conversations, PARAMS, use_tqdm=False)
    few = {"num_gpu_blocks_override": 30, "max_num_batched_tokens": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILLM_LINEAR", "reference")
        with llm.variant(speculative_config=CONFIGS[method], **few) as drafting:
            found = drafting.chat(conversations, PARAMS, use_tqdm=False)
            assert drafting.engine.memory.num_free == 30
    assert_equal_or_tied(llm, found, expected, PARAMS)
    drafted = sum(output.metrics.num_draft_tokens for output in found)
    accepted = sum(output.metrics.num_accepted_tokens for output in found)
    print(f"{method}: {accepted} of {drafted} drafts accepted, in 20 answers of 40 tokens")
    assert accepted > 20
