"""Load the models of a server, and share the memory for their caches out.

All weights are loaded before any cache is sized, so the order of the models does not matter. The memory that is then
free is divided equally among the engines that were given no size.
"""

from collections.abc import Mapping
from typing import Any

from minillm.assembly import cache_budget
from minillm.llm import LLM


def load(
    models: Mapping[str, str],
    *,
    device: str = "auto",
    dtype: str = "auto",
    drafts: Mapping[str, str],
    quantization: Mapping[str, str],
    replicas: Mapping[str, int],
    cache_bytes: Mapping[str, int],
    **engine_arguments: Any,
) -> dict[str, list[LLM]]:
    """Return the replicas of each model. The mappings have the models' names as keys, and may lack some."""
    llms: dict[str, list[LLM]] = {}
    for name, model in models.items():
        own = dict(engine_arguments)
        if name in drafts:
            own["speculative_config"] = {"method": "draft_model", "model": drafts[name]}
        if name in quantization:
            own["quantization"] = quantization[name]
        first = LLM(model, device=device, dtype=dtype, num_gpu_blocks_override=1, **own)
        llms[name] = [first, *(first.variant() for _ in range(1, replicas.get(name, 1)))]
    _share_memory(llms, cache_bytes)
    return llms


def _share_memory(llms: Mapping[str, list[LLM]], cache_bytes: Mapping[str, int]) -> None:
    """Give each engine its cache: the size in `cache_bytes`, or an equal share, but not more than it can use."""
    everyone = [(name, llm) for name, several in llms.items() for llm in several]
    sharing = [llm for name, llm in everyone if name not in cache_bytes]
    share = 0
    if sharing:
        given = sum(cache_bytes.get(name, 0) for name, _ in everyone)
        budget = cache_budget(sharing[0].model.device, sharing[0].config.gpu_memory_utilization)
        share = max(1, (budget - given) // len(sharing))
    for name, llm in everyone:
        size = cache_bytes.get(name) or min(share, llm.max_cache_bytes)
        llm.rebuild(num_gpu_blocks_override=None, kv_cache_memory_bytes=size)
