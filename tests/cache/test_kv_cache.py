import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import KVCache, NoCache
from minillm.config import ModelConfig, RopeConfig
from minillm.layer_kv import LARGEST
from minillm.ops import Ops, dequantise

ROOT = Path(__file__).parents[2]
quantised = pytest.mark.parametrize("kv_dtype", LARGEST)


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


def fill(cache: KVCache, value: float) -> None:
    for kv in cache.layers:
        for memory in kv.tensors:
            memory.fill_(value)


def test_keys_and_values_land_at_their_layer_row_and_offset():
    cache = KVCache(config(), num_blocks=3, block_size=8)
    fill(cache, math.nan)
    q, k, v = qkv(3)
    cache.attend(1, q, k, v, Batch.of([Chunk([0, 0], 0, [2]), Chunk([0], 0, [0])], 8))
    q2, k2, v2 = qkv(2, seed=1)
    cache.attend(1, q2, k2, v2, Batch.of([Chunk([0, 0], 2, [2])], 8))
    other, kv = cache.layers
    assert all(memory.isnan().all() for memory in other.tensors)
    for memory, first, second in ((kv.k, k, k2), (kv.v, v, v2)):
        assert memory.shape == (3, 8, 2, 4)
        assert torch.equal(memory[2, :4], torch.cat([first[:2], second]))
        assert torch.equal(memory[0, :1], first[2:])
        assert memory[1].isnan().all() and memory[2, 4:].isnan().all() and memory[0, 1:].isnan().all()


def test_what_a_row_held_before_is_never_read():
    """A row is given to the next request as it is; the longer neighbour makes the fast path look beyond its end."""
    outputs = []
    for left_over in (0.0, math.nan):
        cache = KVCache(config(), num_blocks=2, block_size=8)
        fill(cache, left_over)
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
    cache = KVCache(config(), num_blocks=3, block_size=8, dtype=torch.bfloat16)
    assert cache.nbytes == 3 * 8 * config().kv_bytes_per_token(2) == 2 * 2 * 3 * 8 * 2 * 4 * 2
    assert NoCache(config(), 8).nbytes == 0


@quantised
def test_size_in_bytes_with_scales(kv_dtype):
    """A number takes a byte, and each token and head of K and of V has a float32."""
    cache = KVCache(config(), 3, 8, kv_dtype)
    assert cache.nbytes == 3 * 8 * config().kv_bytes_per_token(1, 4) == 2 * 2 * 3 * 8 * 2 * (4 + 4)


def test_paged_and_contiguous_give_the_same_attention():
    """A text of 11 tokens in two chunks, over scattered blocks and over a row."""
    paged, row = KVCache(config(), 9, 4), KVCache(config(), 1, 16)
    for start, n in ((0, 7), (7, 4)):
        step = qkv(n, seed=start)
        found = paged.attend(1, *step, Batch.of([Chunk([0] * n, start, [5, 2, 8])], 4))
        torch.testing.assert_close(found, row.attend(1, *step, Batch.of([Chunk([0] * n, start, [0])], 16)))


@quantised
@pytest.mark.parametrize("ops", [None, Ops()], ids=["the CPU's way", "the definition"])
def test_chunks_of_a_quantised_cache_do_not_change_the_result(kv_dtype, ops):
    """A chunk's own K and V are read back quantised, so one chunk, two, or one per token give the same attention."""
    q, k, v = qkv(11)
    outputs = []
    for ends in ([11], [7, 11], range(1, 12)):
        cache, parts, start = KVCache(config(), 9, 4, kv_dtype, ops=ops), [], 0
        for end in ends:
            part, n = slice(start, end), end - start
            batch = Batch.of([Chunk([0] * n, start, [5, 2, 8])], 4)
            parts.append(cache.attend(1, q[part], k[part], v[part], batch))
            start = end
        outputs.append(torch.cat(parts))
    whole, *others = outputs
    for other in others:
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-6)
    exact = KVCache(config(), 9, 4).attend(1, q, k, v, Batch.of([Chunk([0] * 11, 0, [5, 2, 8])], 4))
    assert 1e-4 < (whole - exact).norm() / exact.norm() < 0.1, "quantised, and close"


@pytest.mark.parametrize("dtype", [torch.float32, *LARGEST])
def test_blocks_are_copied_whole_in_every_layer_and_no_others_change(dtype):
    cache, random = KVCache(config(), 5, 4, dtype), torch.Generator().manual_seed(0)
    for kv in cache.layers:
        for memory in kv.tensors:
            memory.copy_(torch.randn(memory.shape, generator=random) * 50)
    before = [[memory.clone() for memory in kv.tensors] for kv in cache.layers]
    cache.copy_blocks([(3, 0), (3, 1)])
    for kv, kept in zip(cache.layers, before, strict=True):
        assert len(kept) == (4 if dtype in LARGEST else 2)
        for memory, was in zip(kv.tensors, kept, strict=True):
            memory, was = memory.float(), was.float()
            assert torch.equal(memory[:2], was[[3, 3]]) and torch.equal(memory[2:], was[2:])


@quantised
def test_a_fork_of_a_quantised_cache_reads_what_its_parent_wrote(kv_dtype):
    """Scales are copied with the block: without them the copy would stand for other numbers."""
    cache, (q, k, v) = KVCache(config(), 4, 8, kv_dtype), qkv(5)
    cache.attend(0, q, k * 100, v, Batch.of([Chunk([0] * 5, 0, [1])], 8))
    cache.copy_blocks([(1, 3)])
    kv = cache.layers[0]
    values = [dequantise(kv.k[b, :5], kv.k_scale[b, :5], torch.float32) for b in (1, 3)]
    assert torch.equal(*values)
    step = qkv(1, seed=1)
    parent, child = (cache.attend(0, *step, Batch.of([Chunk([0], 5, [block])], 8)) for block in (1, 3))
    assert torch.equal(parent, child)


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
    cache = KVCache(config(num_key_value_heads=4, head_dim=64), num_blocks=16, block_size=8192)
    assert cache.nbytes == 2**29
    assert resident() - before < 2**25
    batch = Batch.of([Chunk([0] * 1024, 0, [3])], 8192)
    k = torch.ones(1024, 4, 64)
    Ops().write_kv(k, k, cache.layers[0], batch.slot_mapping)
    assert 3 * k.nbytes <= resident() - before < 2**25
