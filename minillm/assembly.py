"""Build an engine from a configuration: choose its cache, scheduler and memory size, and connect the parts.

Only this file knows all of the engine's parts. Here `minillm.swap` can replace them with a learner's own.
"""

from dataclasses import astuple
from functools import partial

import torch

from minillm.cache.blocks import BlockAllocator
from minillm.cache.kv_cache import KVCache, NoCache
from minillm.cache.manager import KVCacheManager, NoCacheManager
from minillm.cache.prefix import PrefixCache
from minillm.cache.virtual import Page, VirtualKVCache, VirtualKVCacheManager
from minillm.config import EngineConfig, ModelConfig
from minillm.engine.engine import Engine
from minillm.engine.graphs import CudaRecorder, DecodeGraphs
from minillm.engine.proposer import Proposer, TokenProposer
from minillm.engine.runner import Runner
from minillm.engine.scheduler import Scheduler
from minillm.engine.static import StaticScheduler
from minillm.layer_kv import LARGEST
from minillm.measure.memory import available_bytes
from minillm.measure.trace import DraftChoice, LinearChoice, Trace
from minillm.model.tokenizer import Tokenizer
from minillm.model.transformer import Transformer
from minillm.quantization.products import choose
from minillm.sampling import sample, verify
from minillm.speculative.adaptive import Adaptive, Choice
from minillm.speculative.draft import DraftModel
from minillm.speculative.eagle import Eagle, EagleHead
from minillm.speculative.load import check_length
from minillm.speculative.ngram import NGram
from minillm.speculative.suffix import Suffix
from minillm.swap import anything_swapped, swapped, swapped_ops

KV_DTYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}  # "auto" is the model's dtype
BYTES_OF_SCALE = 4  # float32


def max_model_len_for(config: EngineConfig, model: ModelConfig) -> int:
    """Return the length of the longest sequence to serve: `config.max_model_len`, by default the model's limit.

    Raises `ValueError` if `config.max_model_len` exceeds the model's limit.
    """
    longest = model.max_position_embeddings
    if config.max_model_len is not None and config.max_model_len > longest:
        raise ValueError(
            f"max_model_len={config.max_model_len} exceeds the model's {longest} positions: use {longest} or less"
        )
    return config.max_model_len or longest


def build_engine(
    model: Transformer,
    tokenizer: Tokenizer | None,
    config: EngineConfig,
    draft: Transformer | EagleHead | None = None,
) -> Engine:
    """Return the engine that a configuration describes, with the parts that `minillm.swap` replaces.

    `draft` is the loaded `model` of `config.speculative_config`, if it names one: a draft model or an EAGLE-3 head.
    """
    assert config.max_model_len is not None
    if swapped("propose", None) is not None:
        draft = None  # nothing would fill its cache
    model = model.with_ops(swapped_ops(model.ops))
    trace = Trace() if config.trace else None
    choices = [
        *choose(model),
        *(choose(_decoder(draft)) if draft is not None else ()),
    ]  # before the first step, so that no step contains the measurement
    if trace is not None:
        trace += [LinearChoice(trace.now(), *choice) for choice in choices]
    cache, memory = _memory(model, config, draft)
    draft_cache = None
    if draft is not None:
        draft = draft.with_ops(swapped_ops(_decoder(draft).ops))
        assert isinstance(cache, KVCache)
        draft_cache = _draft_cache(_decoder(draft), cache, config)
    max_num_batched_tokens = config.max_num_batched_tokens
    if config.kv_cache == "none":  # without a cache a sequence cannot be computed in parts
        max_num_batched_tokens = config.max_num_seqs * config.max_model_len
    scheduler: Scheduler = swapped(
        "scheduler", StaticScheduler if config.scheduling_policy == "static" else Scheduler
    )(
        memory,
        config.max_num_seqs,
        max_num_batched_tokens,
        enable_chunked_prefill=config.enable_chunked_prefill,
        long_prefill_token_threshold=config.long_prefill_token_threshold,
        policy="priority" if config.scheduling_policy == "priority" else "fcfs",
    )
    speculation = config.speculation
    rows = 1 if speculation is None else 1 + speculation.num_speculative_tokens
    taps = draft.taps if isinstance(draft, EagleHead) else None
    engine = Engine(
        _runner(model, cache, config, rows, taps, draft_cache),
        memory,
        scheduler,
        tokenizer=tokenizer,
        max_model_len=config.max_model_len,
        sample=swapped("sample", sample),
        verify=swapped("verify", verify),
        max_num_waiting=config.max_num_waiting,
        seed=config.seed,
        trace=trace,
    )
    engine.proposer = _proposer(engine, config, draft, draft_cache)
    if engine.proposer is not None and speculation is not None and speculation.adaptive:
        engine.proposer = Adaptive(engine.proposer, report=partial(_record_choice, engine))
        engine.depends_on_timing = speculation.draft_sample_method == "probabilistic"
    return engine


def _record_choice(engine: Engine, choice: Choice) -> None:
    """Write a choice of adaptive speculation into the engine's trace, if it has one."""
    if engine.trace is not None:
        engine.trace.append(DraftChoice(engine.trace.now(), *astuple(choice)))


def _proposer(
    engine: Engine, config: EngineConfig, draft: Transformer | EagleHead | None, draft_cache: KVCache | None
) -> Proposer | None:
    """Return what proposes drafts, or None without speculation."""
    speculation = config.speculation
    most = 4 if speculation is None else speculation.num_speculative_tokens
    if (own := swapped("propose", None)) is not None:
        return TokenProposer(own, most)
    if speculation is None:
        return None
    if speculation.method == "ngram":
        return TokenProposer(NGram(speculation.prompt_lookup_min, speculation.prompt_lookup_max), most)
    if speculation.method == "suffix":
        return Suffix(most)
    assert draft is not None and draft_cache is not None and config.max_model_len is not None
    check_length(speculation, _decoder(draft).config, config.max_model_len)
    if isinstance(draft, EagleHead):
        return Eagle(draft, draft_cache, most)
    return DraftModel(
        _runner(draft, draft_cache, config, rows=2),
        most,
        engine.vocab_size,
        engine.runner.model.config.vocab_size,
        speculation.draft_sample_method == "probabilistic",
    )


def _decoder(draft: Transformer | EagleHead) -> Transformer:
    """Return the draft model, or the decoder layer of an EAGLE-3 head."""
    return draft.decoder if isinstance(draft, EagleHead) else draft


def _draft_cache(draft: Transformer, cache: KVCache, config: EngineConfig) -> KVCache:
    """Return the draft model's cache, with the blocks of the target's."""
    dtype = KV_DTYPES.get(config.kv_cache_dtype, draft.dtype)
    return KVCache(draft.config, cache.num_blocks, cache.block_size, dtype, draft.device, draft.ops)


def _runner(
    model: Transformer,
    cache: KVCache | NoCache,
    config: EngineConfig,
    rows: int = 1,
    taps: tuple[int, ...] | None = None,
    draft_cache: KVCache | None = None,
) -> Runner:
    """Return a runner. If a GPU runs our kernels and no part is swapped, it has recorded steps: with one token per
    request, and with up to `rows`. They return the outputs of the layers `taps`."""
    assert config.max_model_len is not None
    recordable = model.device.type == "cuda" and model.ops.recordable
    if config.enforce_eager or not recordable or anything_swapped() or not isinstance(cache, KVCache):
        return Runner(model, cache, draft_cache=draft_cache)
    limits, record = (config.max_num_seqs, config.max_model_len), CudaRecorder()
    several = DecodeGraphs(model, cache, *limits, record, rows, taps) if rows > 1 else None
    one = DecodeGraphs(model, cache, *limits, record, 1, taps)
    return Runner(model, cache, one, draft_cache, several)


def _memory(
    model: Transformer, config: EngineConfig, draft: Transformer | EagleHead | None
) -> tuple[KVCache | NoCache, KVCacheManager]:
    """Return the cache and the manager that allocates its blocks, which are also those of the draft model's cache."""
    assert config.max_model_len is not None
    if config.kv_cache == "none":
        nothing = NoCache(model.config, config.max_model_len)
        return nothing, NoCacheManager(config.max_num_seqs, config.max_model_len)
    dtype = KV_DTYPES.get(config.kv_cache_dtype, model.dtype)
    token_bytes = _kv_bytes_per_token(config, model, *(() if draft is None else (_decoder(draft),)))
    if config.kv_cache == "contiguous":
        row_bytes = config.max_model_len * token_bytes
        num_rows = _num_blocks(model, config, config.max_model_len, row_bytes)
        rows = KVCache(model.config, num_rows, config.max_model_len, dtype, model.device, model.ops)
        return rows, KVCacheManager(num_rows, config.max_model_len, can_fork=False)
    if config.kv_cache == "virtual":
        page = Page.of_model(model.config, model.dtype, model.device)
        page_bytes = 2 * model.config.num_hidden_layers * page.num_bytes
        num_pages = _num_blocks(model, config, page.num_tokens, page_bytes)
        rows = VirtualKVCache(
            model.config,
            config.max_num_seqs,
            config.max_model_len,
            num_pages,
            page,
            model.dtype,
            model.device,
            model.ops,
        )
        return rows, VirtualKVCacheManager(rows, config.max_num_seqs, num_pages, page.num_tokens)
    num_blocks = _num_blocks(model, config, config.block_size, config.block_size * token_bytes)
    paged = KVCache(model.config, num_blocks, config.block_size, dtype, model.device, model.ops)
    make_prefix = swapped("prefix_cache", PrefixCache)
    prefix = make_prefix(config.block_size, config.seed) if config.enable_prefix_caching else None
    allocator = swapped("allocator", BlockAllocator)
    speculation = config.speculation
    return paged, KVCacheManager(
        num_blocks,
        config.block_size,
        prefix,
        allocator,
        with_draft=draft is not None,
        needs_next_token=isinstance(draft, EagleHead),
        draft_catches_up=speculation is not None
        and speculation.adaptive
        and speculation.method == "draft_model",
    )


def cache_bytes_for(
    model: Transformer, config: EngineConfig, draft: Transformer | EagleHead | None = None
) -> int:
    """Return the size of a cache, with a draft model's, that holds `max_num_seqs` texts of `max_model_len` tokens."""
    length = max_model_len_for(config, model.config)
    if config.kv_cache == "paged":
        length = -(-length // config.block_size) * config.block_size
    per_token = _kv_bytes_per_token(config, model, *(() if draft is None else (_decoder(draft),)))
    return config.max_num_seqs * length * per_token


def _kv_bytes_per_token(config: EngineConfig, *models: Transformer) -> int:
    """Return the bytes that one token takes in the caches of these models."""
    total = 0
    for model in models:
        dtype = KV_DTYPES.get(config.kv_cache_dtype, model.dtype)
        scale = BYTES_OF_SCALE if dtype in LARGEST else 0
        total += model.config.kv_bytes_per_token(dtype.itemsize, scale)
    return total


def _num_blocks(model: Transformer, config: EngineConfig, block_size: int, block_bytes: int) -> int:
    """Return the number of blocks of `block_size` tokens: enough for `max_num_seqs` texts of `max_model_len` tokens.

    If fewer fit into the memory budget (`cache_budget`), return the number that fits. With `kv_cache_memory_bytes`,
    return the number that this memory holds. `block_bytes` is the size of a block in all layers and caches. Raises
    `ValueError` if the budget does not hold one whole text.
    """
    if config.num_gpu_blocks_override is not None:
        return config.num_gpu_blocks_override
    assert config.max_model_len is not None
    blocks_a_text = -(-config.max_model_len // block_size)
    if config.kv_cache_memory_bytes is not None:
        _check_budget(config, config.kv_cache_memory_bytes, blocks_a_text * block_bytes)
        return config.kv_cache_memory_bytes // block_bytes
    budget = cache_budget(model.device, config.gpu_memory_utilization)
    _check_budget(config, budget, blocks_a_text * block_bytes)
    return min(config.max_num_seqs * blocks_a_text, budget // block_bytes)


def cache_budget(device: torch.device, gpu_memory_utilization: float) -> int:
    """Return the bytes that caches may take now: a quarter of the free RAM, or the free part of a GPU's share."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, free - int((1 - gpu_memory_utilization) * total))
    return available_bytes() // 4


def _check_budget(config: EngineConfig, budget: int, text_bytes: int) -> None:
    """Raise `ValueError` if the cache of one text of `max_model_len` tokens takes more than the budget."""
    if budget < text_bytes:
        given = config.kv_cache_memory_bytes is not None
        raise ValueError(
            f"one request's cache of max_model_len={config.max_model_len} tokens takes {text_bytes / 2**20:,.0f} MiB, "
            f"but only {budget / 2**20:,.0f} MiB may be used: set a smaller max_model_len, or "
            + ("a larger kv_cache_memory_bytes" if given else "free memory")
        )
