"""A recording says what the trace says, in whatever pieces it is sent."""

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import SamplingParams
from minillm.measure.trace import (
    RequestAdded,
    RequestFinished,
    Snapshot,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.player.recording import KINDS, ORIGINS, Recording
from tests.engine import tiny
from tests.engine.tiny import PROMPTS
from tests.player.replay import Replay

RUNS = {
    "plain": {},
    "few blocks": {"block_size": 4, "num_gpu_blocks_override": 14, "max_num_seqs": 3},
    "chunks": {"max_num_batched_tokens": 7},
    "static": {"scheduling_policy": "static", "max_num_seqs": 2},
    "contiguous": {"kv_cache": "contiguous"},
    "no cache": {"kv_cache": "none"},
    "drafts": {"block_size": 4},
    "draft model": {"block_size": 4, "max_num_batched_tokens": 12, "num_gpu_blocks_override": 20},
    "rebuilt": {"block_size": 4},
}


@cache
def traced(kind: str) -> tuple[Trace, dict[str, int], dict[str, str]]:
    """The trace of a run, its settings, and the text of each output."""
    drafting = {"method": "draft_model", "model": str(tiny.folder())} if kind == "draft model" else None
    llm = tiny.llm(trace=True, speculative_config=drafting, **RUNS[kind])
    if kind == "drafts":
        llm.engine.proposer = tiny.Guess(lambda requests: [[*r.token_ids[-2:], 9] for r in requests])
    engine = llm.engine
    outputs = [
        engine.add_request(list(prompt), SamplingParams(max_tokens=6 + 3 * i, seed=i, n=1 + 2 * (i == 0)))
        for i, prompt in enumerate([*PROMPTS, PROMPTS[2]])
    ]
    for number in range(1000):
        if kind == "rebuilt" and number in (3, 9):
            llm.rebuild(block_size=5, max_num_seqs=2)
        if not llm.engine.has_unfinished:
            break
        llm.engine.step()
    texts = {}
    for output in outputs:
        for sample in output.outputs:
            name = output.request_id + (f".{sample.index}" if len(output.outputs) > 1 else "")
            texts[name] = sample.text
    return llm.trace, {"block_size": RUNS[kind].get("block_size", 16)}, texts


@cache
def tokenizer():
    return tiny.llm().tokenizer


def replayed(trace: Trace, cuts: list[int], **given_settings: int) -> tuple[Replay, Recording]:
    """The trace as a recording sees it grow: up to each of `cuts`, then whole."""
    growing, replay = Trace(), Replay()
    recording = Recording(growing, {"block_size": 16, **given_settings}, tokenizer().token_text)
    for start, end in zip([0, *cuts], [*cuts, len(trace)], strict=True):
        growing.extend(trace[start:end])
        replay.append(json.loads(json.dumps(recording.extend())))
    return replay, recording


@pytest.mark.parametrize("kind", RUNS)
def test_every_step_and_block_table_is_the_traces(kind):
    trace, settings, _ = traced(kind)
    replay, _ = replayed(trace, [], **settings)
    steps = trace.of(StepRecord)
    assert len(replay.steps) == len(steps) > 5
    for said, step in zip(replay.steps, steps, strict=True):
        assert said.parts == {
            p.request_id: (KINDS.index(p.kind), p.num_computed_tokens, p.num_tokens, p.num_cached_tokens)
            for p in step.scheduled
        }
        assert said.tables == {p.request_id: p.blocks for p in step.scheduled}
        assert {name: said.every_table[name] for name in step.idle_tables} == step.idle_tables
        assert {name: len(words) for name, words in said.drafts.items()} == {
            p.request_id: p.num_drafts for p in step.scheduled if p.drafts
        }
        blocks = [] if step.blocks is None else [step.blocks.total, step.blocks.free, step.blocks.cached]
        copied = [list(pair) for pair in step.copied]
        assert said.rest[2:] == [
            step.num_waiting,
            step.num_running,
            blocks,
            step.preempted,
            copied,
            step.published,
        ]
        assert said.rest[:2] == [round(step.start * 1e6), round(step.end * 1e6)]


@pytest.mark.parametrize("kind", RUNS)
def test_its_words_are_the_texts(kind):
    trace, settings, texts = traced(kind)
    replay, _ = replayed(trace, [], **settings)
    assert set(replay.ids) == set(texts)
    added = {record.request_id: record for record in trace.of(RequestAdded)}
    for name, words, origins in zip(replay.ids, replay.texts, replay.origins, strict=True):
        num_prompt = added[name].num_prompt_tokens
        assert len(words) - num_prompt == len(origins)
        tokens = [record for record in trace.of(TokenRecord) if record.request_id == name]
        assert [ORIGINS[origin] for origin in origins] == [record.origin for record in tokens]
        whole = tokenizer().decode(
            added[name].prompt_token_ids + [t.token_id for t in tokens], skip_special_tokens=False
        )
        if "\ufffd" not in whole:
            assert "".join(words) == whole
    assert replay.finished == {record.request_id: record.reason for record in trace.of(RequestFinished)}


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_pieces_give_what_the_whole_gives(data):
    trace, given_settings, _ = traced(data.draw(st.sampled_from(sorted(RUNS))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(trace)), max_size=6)))
    in_pieces, recording = replayed(trace, cuts, **given_settings)
    late = Replay()
    late.append(json.loads(json.dumps(recording.whole())))
    assert in_pieces == late


def test_a_run_with_a_draft_model_has_every_origin():
    trace, given_settings, _ = traced("draft model")
    replay, _ = replayed(trace, [], **given_settings)
    assert {ORIGINS[origin] for origins in replay.origins for origin in origins} == set(ORIGINS)
    drafts = [words for step in replay.steps for words in step.drafts.values()]
    accepted = sum(origin == ORIGINS.index("accepted") for origins in replay.origins for origin in origins)
    assert 0 < accepted < sum(map(len, drafts))


def test_a_rebuilt_engine_is_said():
    trace, given_settings, _ = traced("rebuilt")
    replay, _ = replayed(trace, [], **given_settings)
    assert [(at, reason) for at, reason, _ in replay.resets] == [(3, "rebuilt"), (9, "rebuilt")]
    assert replay.resets[0][2]["block_size"] == 5


@cache
def watched(kind: str) -> tuple[Trace, list[int]]:
    """The trace of a run with snapshots after some steps, and which records they are."""
    drafting = {"method": "draft_model", "model": str(tiny.folder())} if kind == "draft model" else None
    llm = tiny.llm(speculative_config=drafting, **{"num_gpu_blocks_override": 30, **RUNS[kind]})
    if kind == "drafts":
        llm.engine.proposer = tiny.Guess(lambda requests: [[*r.token_ids[-2:], 9] for r in requests])
    trace = Trace()
    for i, prompt in enumerate([*PROMPTS, PROMPTS[2]]):
        llm.submit([list(prompt)], SamplingParams(max_tokens=6 + 3 * i, seed=i, n=1 + 2 * (i == 0)))
    for number in range(1000):
        if number % 7 == 2:
            llm.watch(trace)
        if not llm.engine.has_unfinished:
            break
        llm.engine.step()
    return trace, [i for i, record in enumerate(trace) if isinstance(record, Snapshot)]


@pytest.mark.parametrize("kind", [kind for kind in RUNS if kind != "rebuilt"])
def test_a_reader_that_begins_with_a_snapshot_sees_what_the_others_see(kind):
    trace, snapshots = watched(kind)
    size = {"block_size": RUNS[kind].get("block_size", 16)}
    growing = Trace()
    recording = Recording(growing, size, tokenizer().token_text, rolling=True)
    early, num_late = Replay(), 0
    for start, end in zip(snapshots, [*snapshots[1:], len(trace)], strict=True):
        growing.extend(trace[start:end])
        early.append(json.loads(json.dumps(recording.extend())))
        assert growing == []
        late = Replay()
        late.append(json.loads(json.dumps(recording.whole())))
        num_steps, now = len(late.steps), {name: i for i, name in enumerate(early.ids)}
        assert late.steps and all(
            (a.parts, a.tables, a.drafts, a.rest) == (b.parts, b.tables, b.drafts, b.rest)
            for a, b in zip(late.steps, early.steps[-num_steps:], strict=True)
        )
        for i, name in enumerate(late.ids):
            row = now[name]
            assert (late.texts[i], late.tables[i]) == (early.texts[row], early.tables[row]), name
            assert late.finished.get(name) == early.finished.get(name)
        num_late += recording.first > 0
    assert num_late > 1 and len(late.ids) < len(early.ids), "old requests are forgotten"


def test_a_snapshot_is_the_engines_state():
    llm = tiny.llm(block_size=4, num_gpu_blocks_override=40, max_num_seqs=2)
    outputs = llm.submit([list(prompt) for prompt in PROMPTS[:4]], SamplingParams(max_tokens=9, seed=1))
    for _ in range(5):
        llm.engine.step()
    trace = Trace()
    llm.watch(trace)
    replay = Replay()
    replay.append(Recording(trace, {"block_size": 4}).extend())
    requests = {r.request_id: r for r in (*llm.engine.scheduler.running, *llm.engine.scheduler.waiting)}
    assert set(replay.ids) == set(requests) and len(requests) > 2
    for name, table, end, words in zip(replay.ids, replay.tables, replay.ends, replay.texts, strict=True):
        assert (table, end) == (requests[name].block_table.tolist(), requests[name].num_computed_tokens)
        assert words == [str(token_id) for token_id in requests[name].token_ids]
    assert replay.known == set(llm.engine.memory.known()) != set()
    assert any(output.finished for output in outputs) is False
    llm.watch(None)
    num_records = len(trace)
    llm.engine.step()
    assert len(trace) == num_records


def test_a_rolling_recording_forgets_words_too(monkeypatch):
    monkeypatch.setattr("minillm.player.recording.MAX_WORDS", 3)
    trace = Trace()
    recording = Recording(trace, {"block_size": 4}, rolling=True)
    for i in range(4):
        trace += [Snapshot(0.0, i, []), RequestAdded(0.0, str(i), 2, [2 * i, 2 * i + 1])]
        trace.append(RequestFinished(0.0, str(i), "abort"))
        recording.extend()
    whole = recording.whole()
    assert whole["start"] == recording.first == 6 and whole["events"][0][0] == "snapshot"
    assert whole["words"] == ["4", "5", "6", "7"] and whole["first_word"] == 0


def test_a_trace_without_prompts_has_their_length():
    trace = Trace()
    trace.append(RequestAdded(0.5, "a", 3))
    trace.append(TokenRecord(1.0, "a", 0, 41))
    piece = Recording(trace, {"block_size": 8}).extend()
    assert piece["events"] == [["add", 500_000, "a", [0, 0, 0]], ["token", 0, 1, 0]]
    assert piece["words"] == ["·", "41"]


def test_it_needs_a_block_size():
    with pytest.raises(ValueError, match="block_size"):
        Recording(Trace(), {"max_num_seqs": 3})
