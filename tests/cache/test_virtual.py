"""The virtual cache: addresses, the memory under them on a CPU, and who gets it. A GPU's memory: test_cuda_pages.py."""

import mmap
import sys
import weakref
from array import array
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minillm import RequestError, SamplingParams
from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import KVCache
from minillm.cache.virtual import HostPages, Page, VirtualKVCache, VirtualKVCacheManager
from minillm.config import ModelConfig, RopeConfig
from minillm.cpu.paged_attention import SingleRead
from minillm.layer_kv import LARGEST
from minillm.measure.memory import rss_bytes
from minillm.measure.trace import BlockCounts, StepRecord
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="reads /proc, and counts on what madvise does on Linux"
)


def config(num_kv_heads: int = 2, head_dim: int = 4) -> ModelConfig:
    return ModelConfig(
        family="llama",
        vocab_size=11,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2 * num_kv_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=head_dim,
        max_position_embeddings=64,
        rope=RopeConfig(),
    )


def virtual(num_rows: int, max_model_len: int, num_kv_heads: int = 2, head_dim: int = 4) -> VirtualKVCache:
    model = config(num_kv_heads, head_dim)
    page = Page.of_model(model, torch.float32, "cpu")
    return VirtualKVCache(model, num_rows, max_model_len, 10**6, page)


# ---- addresses ----


@pytest.mark.parametrize(
    ("token_bytes", "granularity", "num_bytes", "num_tokens"),
    [
        (64, 4096, 4096, 64),
        (512, 4096, 4096, 8),  # tinytales, as the file says
        (1280, 4096, 4096, 3),  # a sixteenth is lost
        (2560, 4096, 8192, 3),  # of one page of 4096 it would be more than a third
        (4096, 4096, 4096, 1),
        (16384, 4096, 16384, 1),
        (5120, 4096, 16384, 3),
        (512, 16384, 16384, 32),  # macOS on ARM
        (2048, 2**21, 2**21, 1024),  # Llama 3 8B, as the file says
    ],
)
def test_a_page_holds_whole_tokens(token_bytes, granularity, num_bytes, num_tokens):
    assert Page.of(token_bytes, granularity) == Page(num_bytes, num_tokens)


@given(token_bytes=st.integers(1, 2**16), granularity=st.sampled_from([4096, 16384, 2**21]))
def test_less_than_a_tenth_of_a_page_is_lost(token_bytes, granularity):
    page = Page.of(token_bytes, granularity)
    assert page.num_bytes % granularity == 0
    assert 0.9 * page.num_bytes < page.num_tokens * token_bytes <= page.num_bytes


@pytest.mark.parametrize(
    ("heads", "head_dim"), [(2, 4), (5, 64), (3, 20), (5, 256)], ids=["32 B", "1280 B", "240 B", "5120 B"]
)
@pytest.mark.parametrize("length", [1, 7, 300])
def test_rows_begin_at_pages_and_hold_the_longest_text(heads, head_dim, length):
    cache = virtual(3, length, heads, head_dim)
    planes = [memory for kv in cache.layers for memory in kv.tensors]
    assert len(planes) == 4 and cache.block_size >= length and cache.nbytes == 4 * planes[0].nbytes
    row_bytes = planes[0][0].nbytes
    assert row_bytes >= -(-length // cache.page.num_tokens) * cache.page.num_bytes, "all pages of a text fit"
    for memory in planes:
        assert memory.shape == (3, cache.block_size, heads, head_dim) and memory.is_contiguous()
    starts = [memory[row].data_ptr() for memory in planes for row in range(3)]
    assert all(start % mmap.PAGESIZE == 0 for start in starts) and len(set(starts)) == 12


@pytest.mark.parametrize("dtype", LARGEST)
def test_a_quantised_cache_is_refused_by_name(dtype):
    with pytest.raises(
        ValueError, match=f'kv_cache="virtual" has no pages for the scales of a {dtype} cache'
    ):
        Page.of_model(config(), dtype, "cpu")


@pytest.mark.parametrize(("heads", "head_dim"), [(2, 4), (3, 20)])
def test_it_computes_what_the_contiguous_cache_computes(heads, head_dim):
    ours, theirs = virtual(3, 50, heads, head_dim), KVCache(config(heads, head_dim), 3, 50)
    random = torch.Generator().manual_seed(0)
    for chunks in ([([0] * 40, 0, [2]), ([0] * 3, 0, [0])], [([0], 40, [2]), ([0] * 47, 3, [0])]):
        num_tokens = sum(len(ids) for ids, _, _ in chunks)
        q, k, v = (torch.randn(num_tokens, n * heads, head_dim, generator=random) for n in (2, 1, 1))
        found = []
        for cache in (ours, theirs):
            batch = Batch.of([Chunk(*chunk) for chunk in chunks], cache.block_size)
            reads = [SingleRead.of(chunk, 0, batch.block_size, None, q.device) for chunk in batch.chunks]
            assert all(isinstance(read.slots, slice) for read in reads), "one row is one block"
            found += [cache.attend(layer, q, k, v, batch) for layer in range(2)]
        torch.testing.assert_close(found[:2], found[2:], rtol=0, atol=0)


@linux
@pytest.mark.parametrize(("heads", "head_dim"), [(2, 4), (5, 64)])
def test_what_is_unmapped_is_those_pages_of_that_row_in_every_layer(heads, head_dim):
    cache = virtual(3, 1000, heads, head_dim)
    planes = [memory for kv in cache.layers for memory in kv.tensors]
    for memory in planes:
        memory.fill_(1)
    cache.unmap(1, 1, 3)
    first, last = (page * cache.page.num_bytes // 4 for page in (1, 3))  # in numbers of four bytes
    for memory in planes:
        rows = memory.flatten(1)  # [rows, numbers]
        assert (rows[[0, 2]] == 1).all()
        assert (rows[1, :first] == 1).all() and (rows[1, last:] == 1).all()
        assert (rows[1, first:last] == 0).all(), "on Linux fresh memory is zeros"


# ---- memory ----

ERROR = 2 * 2**20  # what else the process takes or gives back meanwhile; below, 16 MiB and more are at stake


class Text:
    """A request with the attributes that the manager reads."""

    def __init__(self, num_tokens):
        self.num_tokens, self.max_cached_tokens = num_tokens, 10**6
        self.num_computed_tokens = self.num_cached_tokens = self.num_published = 0
        self.block_table, self.block_hashes, self.may_hit = array("i"), [], True

    @property
    def num_wanted(self):
        return self.num_tokens


def write(cache: VirtualKVCache, text: Text) -> None:
    """All tokens of a text, in every layer."""
    [row] = text.block_table
    for kv in cache.layers:
        kv.k[row, : text.num_tokens], kv.v[row, : text.num_tokens] = 1, 1


@linux
def test_resident_memory_follows_what_is_lent():
    """1 KiB of a layer's keys a token, four KiB in all: 2**13 tokens are 32 MiB."""
    cache = virtual(16, 2**14, 4, 64)
    assert cache.nbytes == 2**30
    pool = 2**26 // (4 * cache.page.num_bytes)
    memory = VirtualKVCacheManager(cache, 16, pool, cache.page.num_tokens)
    before = rss_bytes()

    def resident() -> int:
        assert sum(memory.mapped) * 4 * cache.page.num_bytes == pytest.approx(rss_bytes() - before, abs=ERROR)
        return round((rss_bytes() - before) / 2**20)

    first, second = Text(2**12), Text(2**13)
    assert memory.admit(first) and rss_bytes() - before < ERROR, "lent, and there when it is written"
    write(cache, first)
    assert resident() == pytest.approx(16, abs=2)
    assert memory.admit(second)
    write(cache, second)
    assert resident() == pytest.approx(48, abs=2)
    memory.free(first)
    assert resident() == pytest.approx(32, abs=2)
    memory.free(second)
    assert resident() == pytest.approx(0, abs=2)
    again = Text(2**14)
    assert memory.admit(again)
    write(cache, again)
    assert resident() == pytest.approx(64, abs=2), "the pool is 64 MiB"
    memory.free(again)
    assert resident() == pytest.approx(0, abs=2)
    cache = memory = None
    assert rss_bytes() - before < ERROR


@linux
def test_the_kernel_gives_small_pages_only():
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no huge pages")
    pages = HostPages(2**24)
    start = f"{pages.tensor().data_ptr():x}-"
    smaps = Path("/proc/self/smaps").read_text()
    flags = smaps[smaps.index(f"\n{start}") :].split("VmFlags:")[1].splitlines()[0]
    assert "nh" in flags.split(), "no huge pages"
    assert "nr" in flags.split(), "nothing is reserved"


@pytest.mark.parametrize("close", [lambda llm: llm.close(), lambda llm: None], ids=["closed", "dropped"])
def test_the_addresses_go_with_the_llm(close):
    llm = tiny.llm(kv_cache="virtual")
    llm.generate(list(PROMPTS[0]), SamplingParams(max_tokens=3))
    mapping = weakref.ref(llm.engine.runner.cache._pages._range)
    address = llm.engine.runner.cache.layers[0].k.data_ptr()
    assert mapping() is not None
    close(llm)
    del llm
    assert mapping() is None
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert not maps.read_text().startswith(f"{address:x}-") and f"\n{address:x}-" not in maps.read_text()


def test_a_tensor_keeps_its_addresses():
    pages = HostPages(4 * mmap.PAGESIZE)
    tail = pages.tensor()[-10:]
    mapping = weakref.ref(pages._range)
    del pages
    tail.fill_(3)
    assert mapping() is not None and tail.sum() == 30
    del tail
    assert mapping() is None


def test_without_madvise_it_says_so(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_DONTNEED")
    with pytest.raises(NotImplementedError, match=r'has no madvise: use kv_cache="paged"'):
        tiny.llm(kv_cache="virtual")


def test_addresses_that_the_system_refuses():
    with pytest.raises(MemoryError, match=r"refuses 1,073,741,824\.0 GiB of addresses .*max_num_seqs"):
        HostPages(2**60)


# ---- who gets it ----


class Ledger:
    """Rows that are only written down: a page is mapped or not, and never twice."""

    def __init__(self):
        self.mapped, self.calls = set(), []

    def map(self, row, first, last):
        assert first < last
        pages = {(row, page) for page in range(first, last)}
        assert not pages & self.mapped
        self.mapped |= pages
        self.calls.append(("map", row, first, last))

    def unmap(self, row, first, last):
        assert first < last
        pages = {(row, page) for page in range(first, last)}
        assert pages <= self.mapped
        self.mapped -= pages
        self.calls.append(("unmap", row, first, last))


def manager(num_rows=4, num_pages=16, page_tokens=4):
    return VirtualKVCacheManager(Ledger(), num_rows, num_pages, page_tokens)


def test_a_request_gets_a_row_and_pages_for_its_tokens_or_nothing():
    memory = manager(num_rows=2, num_pages=5)
    first, second, late = Text(9), Text(4), Text(1)
    assert memory.admit(first) and list(first.block_table) == [0] and memory.num_free == 2
    assert not memory.admit(Text(9)), "three pages, and two are free"
    assert not memory.admit(second, headroom=2) and len(second.block_table) == 0
    assert memory.admit(second, headroom=1) and memory.num_free == 1
    assert not memory.admit(late) and len(late.block_table) == 0, "a page is free, a row is not"
    first.num_tokens = 12
    assert memory.grow(first) and memory.num_free == 1
    first.num_tokens = 13
    assert memory.grow(first) and memory.num_free == 0
    second.num_tokens = 5
    assert not memory.grow(second) and memory.mapped == [4, 1]
    memory.free(first)
    assert memory.grow(second) and memory.num_free == 3


def test_it_shares_nothing():
    memory, parent, child = manager(), Text(9), Text(9)
    memory.admit(parent)
    assert not memory.fork(parent, child) and memory.publish(parent) == []
    assert not memory.can_fork and memory.copies == [] and memory.num_cached == 0
    assert memory.capacity == 64


def test_pages_go_back_with_the_request():
    memory, first, second = manager(), Text(12), Text(20)
    memory.admit(first), memory.admit(second)
    assert memory.mapped == [3, 5, 0, 0]
    memory.free(second)
    assert memory.mapped == [3, 0, 0, 0] and memory._rows.calls[-1] == ("unmap", 1, 0, 5)
    first.num_tokens = 64
    assert memory.grow(first) and memory._rows.calls[-1] == ("map", 0, 3, 16)


class Tenants(RuleBasedStateMachine):
    """Texts of all lengths come, grow and go; of each page it is known who may use it and where it is."""

    @initialize(num_rows=st.integers(1, 5), num_pages=st.integers(1, 20), page_tokens=st.integers(1, 5))
    def begin(self, num_rows, num_pages, page_tokens):
        self.memory, self.texts = manager(num_rows, num_pages, page_tokens), []
        self.num_rows, self.page_tokens = num_rows, page_tokens

    def pages(self, text):
        return -(-text.num_tokens // self.page_tokens)

    @property
    def free_pages(self):
        return self.memory.num_blocks - sum(self.pages(text) for text in self.texts)

    @rule(num_tokens=st.integers(1, 40), headroom=st.integers(0, 3))
    def admit(self, num_tokens, headroom):
        text = Text(num_tokens)
        fits = self.pages(text) + headroom <= self.free_pages and len(self.texts) < self.num_rows
        assert self.memory.admit(text, headroom) == fits
        if fits:
            self.texts.append(text)
        else:
            assert len(text.block_table) == 0

    @precondition(lambda self: self.texts)
    @rule(which=st.integers(0, 99), more=st.integers(0, 12))
    def grow(self, which, more):
        text = self.texts[which % len(self.texts)]
        before = text.num_tokens
        free = self.free_pages + self.pages(text)
        text.num_tokens += more
        if self.pages(text) > free:
            assert not self.memory.grow(text)
            text.num_tokens = before
        else:
            assert self.memory.grow(text)

    @precondition(lambda self: self.texts)
    @rule(which=st.integers(0, 99))
    def free(self, which):
        text = self.texts.pop(which % len(self.texts))
        self.memory.free(text)
        assert len(text.block_table) == 0

    @invariant()
    def every_text_can_write_all_of_its_tokens(self):
        mapped = self.memory._rows.mapped
        rows = [row for text in self.texts for row in text.block_table]
        assert len(set(rows)) == len(rows) == len(self.texts)
        for text in self.texts:
            assert all((text.block_table[0], page) in mapped for page in range(self.pages(text)))

    @invariant()
    def pages_are_mapped_for_the_texts_and_no_others(self):
        memory = self.memory
        mapped = memory._rows.mapped
        assert memory.num_free == self.free_pages >= 0
        assert len(mapped) == sum(memory.mapped) == sum(self.pages(text) for text in self.texts)
        for row, num_pages in enumerate(memory.mapped):
            assert {page for r, page in mapped if r == row} == set(range(num_pages)), (
                "from the row's start on"
            )


TestTenants = Tenants.TestCase
TestTenants.settings = settings(max_examples=100, stateful_step_count=40)


# ---- in the engine ----

PAGE = Page.of(2 * 8 * 4, mmap.PAGESIZE)  # of the tiny model: 2 heads of 8 numbers of 4 bytes
small_pages = pytest.mark.skipif(
    PAGE.num_tokens >= tiny.CONTEXT,
    reason=f"a page holds {PAGE.num_tokens} tokens, more than the tiny model's context",
)


def test_the_pool_holds_as_many_whole_texts_as_there_are_rows():
    memory = tiny.llm(kv_cache="virtual", max_num_seqs=3).engine.memory
    assert memory.block_size == PAGE.num_tokens
    assert memory.num_blocks == 3 * -(-tiny.CONTEXT // PAGE.num_tokens)


def test_the_pool_is_a_quarter_of_the_free_memory_at_most(monkeypatch):
    page_bytes = 4 * PAGE.num_bytes  # K and V of two layers
    monkeypatch.setattr("minillm.assembly.available_bytes", lambda: 4 * 5 * page_bytes)
    assert tiny.llm(kv_cache="virtual", max_num_seqs=30).engine.memory.num_blocks == 5


def test_a_pool_in_which_no_whole_text_fits_is_refused(monkeypatch):
    monkeypatch.setattr("minillm.assembly.available_bytes", lambda: 4 * PAGE.num_bytes)
    with pytest.raises(ValueError, match=r"max_model_len=96 tokens takes .* MiB, but only 0 MiB may be used"):
        tiny.llm(kv_cache="virtual")


@small_pages
def test_a_request_for_which_the_pool_is_too_small_is_refused():
    llm = tiny.llm(kv_cache="virtual", num_gpu_blocks_override=1)
    room = PAGE.num_tokens
    [output] = llm.generate(list(PROMPTS[3]), SamplingParams(max_tokens=room - 40 + 1, ignore_eos=True))
    assert len(output.outputs[0].token_ids) == room - 40 + 1, "the last token needs no place"
    with pytest.raises(RequestError, match=f"whole KV cache has 1 blocks of {room} = {room}"):
        llm.generate(list(PROMPTS[3]), SamplingParams(max_tokens=room - 40 + 2))
    tiny.assert_idle(llm)


@small_pages
def test_where_pages_are_few_requests_are_preempted_and_say_the_same():
    """Three pages: two requests begin in one each, and then both want a second one."""
    llm = tiny.llm(kv_cache="virtual", num_gpu_blocks_override=3, trace=True)
    prompts = [PROMPTS[3], PROMPTS[3][1:]]
    params = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)
    alone = [tiny.llm().generate(list(prompt), params)[0].outputs[0].token_ids for prompt in prompts]
    outputs = llm.generate([list(prompt) for prompt in prompts], params)
    assert [output.outputs[0].token_ids for output in outputs] == alone
    steps = llm.trace.of(StepRecord)
    assert [step.preempted for step in steps if step.preempted] == [["1"]]
    assert steps[0].blocks == BlockCounts(3, 1) and BlockCounts(3, 0) in [step.blocks for step in steps]
    assert all(len(part.blocks) == 1 for step in steps for part in step.scheduled), "a row is the whole table"
    tiny.assert_idle(llm)
    tiny.assert_pages_add_up(llm)


@small_pages
@pytest.mark.parametrize(
    ("changes", "preempts"),
    [
        ({}, True),
        ({"max_num_batched_tokens": 7}, True),
        ({"scheduling_policy": "static"}, True),
        ({"max_num_seqs": 1}, False),
    ],
    ids=["together", "chunks of 7", "static", "one row"],
)
def test_rows_that_are_used_again_hold_no_trace_of_whom_they_held(changes, preempts):
    """Five pages, six texts that end in their second page; unwritten memory is poisoned first."""
    llm = tiny.llm(**{"kv_cache": "virtual", "num_gpu_blocks_override": 5, "trace": True} | changes)
    for memory in tiny.cache_tensors(llm):
        memory.fill_(torch.nan)
    prompts = [(token_id, *PROMPTS[3]) for token_id in range(3, 9)]
    outputs = llm.generate(
        [list(prompt) for prompt in prompts], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    )
    for prompt, output in zip(prompts, outputs, strict=True):
        expected = tiny.greedy(prompt, 40)  # which ends where an end token comes
        assert output.outputs[0].token_ids[: len(expected)] == expected
    assert any(step.preempted for step in llm.trace.of(StepRecord)) == preempts
    tiny.assert_pages_add_up(llm)


def test_samples_of_one_prompt_are_those_of_lone_runs():
    params = SamplingParams(n=3, temperature=1.2, seed=5, max_tokens=12, ignore_eos=True)
    [paged], [virtual] = (
        tiny.llm(kv_cache=kind).generate(list(PROMPTS[2]), params) for kind in ("paged", "virtual")
    )
    assert [s.token_ids for s in virtual.outputs] == [s.token_ids for s in paged.outputs]
