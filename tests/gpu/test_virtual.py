"""The virtual cache over a GPU's real memory: the same tokens as paged, and the memory comes back."""

import gc

import pytest
import torch

from minillm import LLM, SamplingParams
from minillm.cache.cuda_pages import CudaPages, granularity

pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings comes with torch for CUDA")
pytestmark = pytest.mark.gpu
PROMPTS = [
    "Once upon a time",
    "The fox",
    "One cold morning, a baker called",
    "It was raining in the valley and nobody",
]
GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)


def test_what_is_mapped_can_be_written_and_read() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    page = granularity(device)
    pages = CudaPages(8 * page, page, 3, device)
    memory = pages.tensor()
    assert memory.shape == (8 * page,) and memory.device == device
    pages.map(2 * page, 2 * page)
    memory[2 * page : 4 * page] = 7
    assert memory[2 * page : 4 * page].sum().item() == 7 * 2 * page
    pages.unmap(2 * page, page)
    pages.map(6 * page, 2 * page)
    memory[6 * page :] = 5
    assert (memory[3 * page : 4 * page] == 7).all() and (memory[6 * page :] == 5).all()


def test_it_writes_the_tokens_of_the_paged_cache() -> None:
    """In float32; two rows for four requests, so that rows and their pages are used again."""
    torch.backends.cuda.matmul.allow_tf32 = False
    found = []
    for kv_cache in ("paged", "virtual"):
        with LLM("tinytales", device="cuda", dtype="float32", kv_cache=kv_cache, max_num_seqs=2) as llm:
            found.append([output.outputs[0].token_ids for output in llm.generate(PROMPTS, GREEDY)])
            assert llm.engine.memory.num_free == llm.engine.memory.num_blocks
    assert found[0] == found[1]


def test_the_memory_comes_back() -> None:
    """Torch does not count what it did not allocate; the driver does."""
    with LLM("tinytales", device="cuda", kv_cache="virtual", max_num_seqs=16) as warm:
        warm.generate(PROMPTS, GREEDY)
    del warm
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.mem_get_info()[0]
    llm = LLM("tinytales", device="cuda", kv_cache="virtual", max_num_seqs=16)
    pool = (
        llm.engine.memory.num_blocks
        * 2
        * llm.model.config.num_hidden_layers
        * llm.engine.runner.cache.page.num_bytes
    )
    llm.generate(PROMPTS, GREEDY)
    assert before - torch.cuda.mem_get_info()[0] >= pool
    llm.close()
    del llm
    gc.collect()
    torch.cuda.empty_cache()
    assert before - torch.cuda.mem_get_info()[0] < pool / 2
