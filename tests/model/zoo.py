"""Small random models of every family, made and saved by `transformers`: the reference that ours is held against."""

import atexit
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import transformers
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import KVCache, NoCache
from minillm.config import ModelConfig
from minillm.model.checkpoint import load_model
from minillm.model.families import read_config
from minillm.model.transformer import Transformer
from minillm.ops import ops_for

CONTEXT = 128
COMMON = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}

# name: (model_type, what its config says beyond COMMON)
ZOO: dict[str, tuple[str, dict]] = {
    "llama": ("llama", {}),
    "llama3-rope": ("llama", {"rope_parameters": LLAMA3}),
    "yarn-rope": ("llama", {"rope_parameters": YARN}),
    "linear-rope": ("llama", {"rope_parameters": LINEAR}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "head_dim-apart": ("llama", {"head_dim": 32}),
    "gqa-1": ("llama", {"num_key_value_heads": 4}),
    "gqa-4": ("llama", {"num_key_value_heads": 1}),
    "smollm": (
        "llama",
        {
            "hidden_size": 72,
            "intermediate_size": 192,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-bias": ("qwen3", {"head_dim": 16, "attention_bias": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "gpt2": ("gpt2", {}),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False, "n_inner": 80, "activation_function": "gelu"}),
}
GPT2 = {"vocab_size": 300, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2}

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@dataclass(frozen=True)
class Sample:
    """One model twice: as `transformers` runs it, and as we load it from what `transformers` saved."""

    folder: Path
    reference: transformers.PreTrainedModel
    config: ModelConfig
    model: Transformer

    def expected(self, tokens: Sequence[int]) -> Tensor:
        """The reference's logits after each token, [len(tokens), vocab]."""
        with torch.no_grad():
            return self.reference(torch.tensor([tokens])).logits[0]

    def expected_greedy(self, tokens: Sequence[int], num_tokens: int) -> list[int]:
        ids = torch.tensor([tokens])
        options = {"max_new_tokens": num_tokens, "do_sample": False, "pad_token_id": 0}
        out = self.reference.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return out[0, len(tokens) :].tolist()

    def run(self, chunks: Sequence[Chunk], cache: KVCache | NoCache) -> Tensor:
        return self.model.logits(self.model(Batch.of(chunks, cache.block_size), cache))

    def kv_cache(self, num_rows: int = 4) -> KVCache:
        return KVCache(self.config, num_rows, CONTEXT, self.model.dtype)

    def no_cache(self) -> NoCache:
        return NoCache(self.config, CONTEXT)


def reference_model(name: str, seed: int = 0) -> transformers.PreTrainedModel:
    """Every weight is random, those too that `transformers` starts at 0 or 1, so that none can be forgotten."""
    kind, changes = ZOO[name]
    config = transformers.AutoConfig.for_model(
        kind, **(GPT2 if kind == "gpt2" else COMMON) | SPECIAL | changes
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=random)
        parameter.data = 0.1 * noise if parameter.ndim > 1 else parameter.data + 0.1 * noise
    model.tie_weights()
    model.generation_config.eos_token_id = None  # greedy runs go on to the end
    return model


@cache
def sample(name: str) -> Sample:
    """The model of this name, made once a session."""
    reference = reference_model(name)
    folder = temporary_folder()
    reference.save_pretrained(folder)
    config = read_config(folder)
    return Sample(folder, reference, config, load_model(folder, config, ops=ops_for(torch.device("cpu"))))


def temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="minillm-zoo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def tokens(length: int, seed: int = 0) -> list[int]:
    return torch.randint(
        0, COMMON["vocab_size"], (length,), generator=torch.Generator().manual_seed(seed)
    ).tolist()


def greedy(
    model: Sample, prompts: Sequence[Sequence[int]], rows: Iterable[int], num_tokens: int
) -> list[list[int]]:
    """Each prompt in its row of one KV cache, all decoded together: their next `num_tokens` tokens."""
    rows = list(rows)
    cache = model.kv_cache(max(rows) + 1)
    chunks = [Chunk(p, 0, [row]) for p, row in zip(prompts, rows, strict=True)]
    outputs: list[list[int]] = [[] for _ in prompts]
    for _ in range(num_tokens):
        logits = model.run(chunks, cache)
        ends = torch.tensor([len(c.token_ids) for c in chunks]).cumsum(0) - 1
        for output, token in zip(outputs, logits[ends].argmax(-1).tolist(), strict=True):
            output.append(token)
        chunks = [Chunk(o[-1:], c.seq_len, c.block_table) for o, c in zip(outputs, chunks, strict=True)]
    return outputs


def naive_greedy(model: Sample, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[list[int]]:
    """The same without a cache: every step computes every sequence again."""
    sequences, cache = [list(p) for p in prompts], model.no_cache()
    for _ in range(num_tokens):
        logits = model.run([Chunk(s, 0, [0]) for s in sequences], cache)
        ends = torch.tensor([len(s) for s in sequences]).cumsum(0) - 1
        for sequence, token in zip(sequences, logits[ends].argmax(-1).tolist(), strict=True):
            sequence.append(token)
    return [s[len(p) :] for s, p in zip(sequences, prompts, strict=True)]
