"""A random Llama of two layers with a tokenizer of its own, and what `transformers` makes of it: the reference."""

import atexit
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from minillm import LLM, SamplingParams
from minillm.engine.request import RequestOutput
from minillm.sampling import Drafts

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
EOS = (0, 5)  # the second one is only in generation_config.json
VOCAB_SIZE = 300
CONTEXT = 96
TEXTS = ["the quick brown fox jumps over the lazy dog", "once upon a time there was a café, naïve and 漢"] * 3
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}"
    "{{ '<|assistant|>' }}"
)
_random = random.Random(1)
PROMPTS = tuple(tuple(_random.choices(range(3, VOCAB_SIZE), k=k)) for k in (5, 1, 23, 40, 12, 2))


class Guess:
    """A proposer that calls `propose(requests)` for the drafts of all requests that can use some."""

    taps = cache = None

    def __init__(self, propose, num_speculative_tokens=1000):
        self.guess, self.num_speculative_tokens = propose, num_speculative_tokens

    def propose(self, computed):
        asking = [part.request for part in computed.parts if part.limit]
        found = iter(self.guess(asking) if asking else ())
        return [Drafts(list(next(found)) if part.limit else []) for part in computed.parts]


def byte_level_tokenizer(vocab_size: int = VOCAB_SIZE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return backend


def save_tokenizer(folder: Path, vocab_size: int = VOCAB_SIZE, **config: str) -> None:
    byte_level_tokenizer(vocab_size).save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config))


@cache
def reference() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=EOS[0],
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = list(EOS)
    model.generation_config.pad_token_id = 0
    return model


@cache
def folder() -> Path:
    """The model as a Hugging Face folder; it goes when the process does."""
    path = Path(tempfile.mkdtemp(prefix="minillm-tiny-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    reference().save_pretrained(path)
    save_tokenizer(path, chat_template=TEMPLATE)
    return path


@cache
def _loaded(linear: str | None) -> LLM:
    return LLM(folder(), max_num_seqs=4)


def _shared() -> LLM:
    # The operations are chosen when the weights are loaded, so each choice has weights of its own.
    return _loaded(os.environ.get("MINILLM_LINEAR"))


def llm(**changes: object) -> LLM:
    """An engine of its own over shared weights."""
    return _shared().variant(**changes)


@cache
def greedy(prompt: tuple[int, ...], max_tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = reference().generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False
    )
    return out[0, len(prompt) :].tolist()


def log_softmax(ids: list[int]) -> torch.Tensor:
    """[len(ids), vocab]: row i is what the reference expects after ids[: i + 1]."""
    with torch.inference_mode():
        return reference()(torch.tensor([ids])).logits[0].log_softmax(-1)


def ids_of(text: str) -> list[int]:
    tokenizer = _shared().tokenizer
    assert tokenizer is not None
    return tokenizer.encode(text, add_special_tokens=False)


def says(*parts: str | int, **params: object) -> SamplingParams:
    """Params under which the model says these texts and token ids, and then goes on with "z"."""
    script = [i for part in parts for i in ([part] if isinstance(part, int) else ids_of(part))]
    z = ids_of("z")[0]

    def dictate(output: list[int], logits: torch.Tensor) -> torch.Tensor:
        wanted = script[len(output)] if len(output) < len(script) else z
        return torch.full_like(logits, -50.0).index_fill(0, torch.tensor(wanted), 50.0)

    return SamplingParams(temperature=0, logits_processors=[dictate], **({"max_tokens": 40} | params))


def tokens(outputs: list[RequestOutput]) -> list[list[list[int]]]:
    return [[sample.token_ids for sample in output.outputs] for output in outputs]


def assert_idle(llm: LLM) -> None:
    """Nothing waits, nothing runs, every block of the cache is free."""
    assert not llm.engine.has_unfinished
    assert llm.engine.memory.num_free == llm.engine.memory.num_blocks
    assert llm.engine.memory.copies == []


def assert_blocks_add_up(llm: LLM) -> None:
    """Every block is free or held by as many as have it in their tables; what is known and free is counted."""
    memory, scheduler = llm.engine.memory, llm.engine.scheduler
    requests = scheduler.running
    held = Counter(block for request in requests for block in request.block_table)
    holders = [memory.allocator.holders(block) for block in range(memory.num_blocks)]
    assert holders == [held[block] for block in range(memory.num_blocks)]
    assert memory.num_free == holders.count(0)
    known = [] if memory.prefix is None else [b for b in range(memory.num_blocks) if b in memory.prefix]
    assert memory.num_cached == sum(holders[block] == 0 for block in known)
    assert len(known) == (0 if memory.prefix is None else len(memory.prefix))
    for request in scheduler.waiting:
        assert len(request.block_table) == 0 and request.num_computed_tokens == 0
    for request in scheduler.running:
        written = -(-request.num_computed_tokens // memory.block_size)
        assert len(set(request.block_table)) == len(request.block_table) >= written


def cache_tensors(llm: LLM) -> list[torch.Tensor]:
    """K and V of every layer."""
    return [tensor for kv in llm.engine.runner.cache.layers for tensor in kv.tensors]


def assert_pages_add_up(llm: LLM) -> None:
    """In a virtual cache: every row is free, or one request's with pages for what it has computed; all pages exist."""
    memory, scheduler = llm.engine.memory, llm.engine.scheduler
    requests = scheduler.running
    rows = [row for request in requests for row in request.block_table]
    assert len(set(rows)) == len(rows) == len(requests)
    for row, mapped in enumerate(memory.mapped):
        assert memory.allocator.holders(row) == (row in rows) == (mapped > 0)
    assert memory.num_free == memory.num_blocks - sum(memory.mapped) >= 0
    for request in requests:
        assert memory.mapped[request.block_table[0]] * memory.block_size >= request.num_computed_tokens
    for request in scheduler.waiting:
        assert len(request.block_table) == 0 and request.num_computed_tokens == 0
