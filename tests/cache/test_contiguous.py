import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minillm.batch import Batch, Chunk
from minillm.cache.contiguous import KVCache, NoCache
from minillm.config import ModelConfig, RopeConfig
from minillm.ops import Ops

ROOT = Path(__file__).parents[2]


def config(**changes) -> ModelConfig:
    numbers = {
        "family": "llama",
        "vocab_size": 11,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 64,
        "rope": RopeConfig(),
    }
    return ModelConfig(**numbers | changes)


def qkv(num_tokens: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(num_tokens, heads, 4, generator=random) for heads in (4, 2, 2))


def test_keys_and_values_land_at_their_layer_row_and_offset():
    cache = KVCache(config(), num_rows=3, max_model_len=8)
    cache.k.fill_(math.nan), cache.v.fill_(math.nan)
    q, k, v = qkv(3)
    cache.attend(1, q, k, v, Batch.of([Chunk([0, 0], 0, [2]), Chunk([0], 0, [0])], 8))
    q2, k2, v2 = qkv(2, seed=1)
    cache.attend(1, q2, k2, v2, Batch.of([Chunk([0, 0], 2, [2])], 8))
    for memory, first, second in ((cache.k, k, k2), (cache.v, v, v2)):
        assert memory.shape == (2, 3, 8, 2, 4)
        assert torch.equal(memory[1, 2, :4], torch.cat([first[:2], second]))
        assert torch.equal(memory[1, 0, :1], first[2:])
        assert memory[0].isnan().all() and memory[1, 1].isnan().all()
        assert memory[1, 2, 4:].isnan().all() and memory[1, 0, 1:].isnan().all()


def test_what_a_row_held_before_is_never_read():
    """A row is given to the next request as it is; the longer neighbour makes the fast path look beyond its end."""
    outputs = []
    for left_over in (0.0, math.nan):
        cache = KVCache(config(), num_rows=2, max_model_len=8)
        cache.k.fill_(left_over), cache.v.fill_(left_over)
        cache.attend(0, *qkv(6), Batch.of([Chunk([0] * 5, 0, [0]), Chunk([0], 0, [1])], 8))
        outputs.append(
            cache.attend(0, *qkv(2, seed=1), Batch.of([Chunk([0], 5, [0]), Chunk([0], 1, [1])], 8))
        )
    assert outputs[1].isfinite().all()
    torch.testing.assert_close(*outputs)


def test_each_layer_slides_by_its_own_window():
    windows = config(sliding_windows=(None, 2))
    batch, step = Batch.of([Chunk([0] * 6, 0, [0])], 8), qkv(6)
    for cache in (KVCache(windows, 1, 8), NoCache(windows, 8)):
        far, near = cache.attend(0, *step, batch), cache.attend(1, *step, batch)
        torch.testing.assert_close(far[:2], near[:2])
        assert not torch.allclose(far[2:], near[2:])


def test_the_cache_runs_on_the_ops_that_it_was_given():
    calls = []
    ops = Ops(
        write_kv=lambda *args: calls.append("write"),
        paged_attention=lambda q, *args: calls.append("read") or q,
    )
    q, k, v = qkv(1)
    assert KVCache(config(), 1, 8, ops=ops).attend(0, q, k, v, Batch.of([Chunk([0], 0, [0])], 8)) is q
    assert calls == ["write", "read"]


def test_size_in_bytes():
    cache = KVCache(config(), num_rows=3, max_model_len=8, dtype=torch.bfloat16)
    assert cache.nbytes == 3 * 8 * config().kv_bytes_per_token(2) == 2 * 2 * 3 * 8 * 2 * 4 * 2
    assert NoCache(config(), 8).nbytes == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm, which only Linux has")
def test_memory_is_reserved_at_once_and_occupied_as_it_is_written():
    """In a process of its own: one that has run long may have occupied memory to give out again."""
    command = f"from {__name__} import reserve_and_write; reserve_and_write()"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def reserve_and_write() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    cache = KVCache(config(num_key_value_heads=4, head_dim=64), num_rows=16, max_model_len=8192)
    assert cache.nbytes == 2**29
    assert resident() - before < 2**25
    batch = Batch.of([Chunk([0] * 1024, 0, [3])], 8192)
    k = torch.ones(1024, 4, 64)
    Ops().write_kv(k, k, cache.k[0], cache.v[0], batch.slot_mapping)
    assert 3 * k.nbytes <= resident() - before < 2**25
