"""The control room without a browser: what runs, what goes on after a change, and what a learner's faults do."""

import re
import threading

import pytest

pytest.importorskip("anywidget")

from minillm import LLM
from minillm.cache.blocks import BlockAllocator
from minillm.engine.scheduler import Scheduler
from minillm.measure.trace import EngineReset, StepRecord
from minillm.viz import room as rooms
from minillm.viz.control_room import ControlRoom
from minillm.viz.room import Room
from tests.engine import tiny

SMALL = {"max_model_len": 96, "steps_per_second": None, "max_tokens": 20}
OURS = ("minillm-engine", "minillm-room", "minillm-player")


def opened(**arguments):
    return Room(tiny._shared(), **{**SMALL, **arguments})


def texts(room):
    return {
        one.prompt: (one.output.outputs[0].token_ids, one.output.outputs[0].finish_reason)
        for one in room.requests
    }


@pytest.fixture(scope="module")
def undisturbed():
    with opened() as room:
        room.add_ten()
        room.wait()
        return texts(room)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    left = [t.name for t in threading.enumerate() if t.name in OURS and t not in before]
    assert left == []


def test_ten_requests_finish_and_closing_ends_the_threads(undisturbed):
    assert len(undisturbed) == 10 and all(reason in ("length", "stop") for _, reason in undisturbed.values())
    with opened() as room:
        assert {"minillm-engine", "minillm-room"} <= {t.name for t in threading.enumerate()}
        assert room.num_unfinished == 0 and room.wait() == []
    room.close()  # again: nothing happens


@pytest.mark.parametrize(
    "change",
    [
        {"num_gpu_blocks_override": 14},
        {"scheduling_policy": "static"},
        {"max_num_batched_tokens": 8},
        {"speculative_config": {"method": "suffix"}},
    ],
    ids=str,
)
def test_a_change_while_it_runs_changes_no_text(change, undisturbed):
    with opened(steps_per_second=200) as room:
        room.add_ten()
        assert room.change(**change) and room.setting(next(iter(change))) == next(iter(change.values()))
        room.wait()
        assert texts(room) == undisturbed
        assert room.messages == []
        assert [record.reason for record in room.llm.trace.of(EngineReset)] == ["rebuilt"]


def test_what_cannot_be_is_refused_with_a_message():
    with opened() as room:
        assert not room.change(max_num_seqs=0) and "max_num_seqs=0" in room.messages[-1]
        assert not room.add("long " * 200) and "max_model_len is 96" in room.messages[-1]
        with pytest.raises(ValueError, match="scheduler=MyScheduler"):
            room.use(True)
        assert room.requests == []


class Raises(Scheduler):
    def schedule(self):
        scheduled = super().schedule()
        return scheduled if len(self.running) < 3 else scheduled[1 / 0]


class Idles(Scheduler):
    def schedule(self):
        return []


class Hangs(Scheduler):
    def schedule(self):
        while self.waiting:
            pass
        return super().schedule()


class Forgets(BlockAllocator):
    def free(self, block, keep=False):
        raise KeyError(block)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"scheduler": Raises}, r"Your scheduler failed.*ZeroDivisionError.*\(schedule, line \d+\)"),
        ({"scheduler": Idles}, r"returned nothing, and \d+ requests wait"),
        ({"scheduler": Hangs}, "had not returned"),
        ({"allocator": Forgets}, r"Your allocator failed.*KeyError.*\(free, line \d+\)"),
    ],
    ids=["raises", "schedules nothing", "never returns", "a faulty allocator"],
)
def test_a_fault_of_mine_is_said_and_the_requests_go_on(part, says, undisturbed, monkeypatch):
    monkeypatch.setattr(rooms, "PATIENCE", 0.3)
    said = []
    with opened(**part, on_message=said.append) as room:
        assert room.use(True) and room.mine
        room.add_ten()
        room.wait()
        assert not room.mine and texts(room) == undisturbed
        assert len(said) == 1 and re.search(says, said[0]), said


def test_mine_runs_in_the_place_of_the_packages(undisturbed):
    calls = []

    class Mine(Scheduler):
        def schedule(self):
            calls.append(len(self.waiting))
            return super().schedule()

    with opened(scheduler=Mine) as room:
        room.add_ten()
        room.wait()
        assert calls == []
        assert room.use(True)
        room.add_ten()
        room.wait()
        assert calls and room.messages == []


class TestControls:
    @pytest.fixture
    def shown(self):
        room = ControlRoom(tiny._shared(), scheduler=Raises, **SMALL)
        yield room
        room.close()

    def test_a_slider_changes_the_engine(self, shown):
        shown.settings["num_gpu_blocks_override"].value = 20
        assert shown.room.setting("num_gpu_blocks_override") == 20
        shown.settings["enable_prefix_caching"].value = False
        assert shown.room.setting("enable_prefix_caching") is False
        assert "enable_prefix_caching is False" in shown._message.value

    def test_speculation_can_be_chosen_and_left(self, shown):
        assert shown.num_drafts.disabled and [value for _, value in shown.method.options] == [
            None, "ngram", "suffix"
        ]  # fmt: skip
        shown.method.value = "ngram"
        assert shown.room.setting("speculative_config") == {"method": "ngram", "num_speculative_tokens": 4}
        assert "speculation is n-grams now" in shown._message.value and not shown.num_drafts.disabled
        shown.num_drafts.value = 2
        assert shown.room.llm.engine.proposer.num_speculative_tokens == 2
        shown.method.value = None
        assert shown.room.llm.engine.proposer is None and shown.num_drafts.disabled

    def test_a_bundled_model_has_its_draft_model(self):
        room = ControlRoom(LLM("tinytales"), **SMALL)
        room.method.value = "draft_model"
        room.add("Once upon a time")
        room.wait()
        room.close()
        assert room.room.setting("speculative_config")["model"] == "tinytales-draft"
        steps = room.player.recording.trace.of(StepRecord)
        assert any(part.drafts for step in steps for part in step.scheduled)

    def test_a_refused_value_goes_back(self, shown):
        shown.room.steps_per_second = 50
        shown.add("a text of some words", max_tokens=80, ignore_eos=True)
        shown.settings["num_gpu_blocks_override"].value = 8
        assert (
            shown.settings["num_gpu_blocks_override"].value
            == 48
            == shown.room.setting("num_gpu_blocks_override")
        )
        assert "8 blocks of 8" in shown._message.value

    def test_the_buttons_add(self, shown):
        prompt, add, ten = shown._controls[:3]
        add.click()
        assert shown.room.requests == []
        prompt.value = "the quick <b>fox"
        add.click()
        ten.click()
        assert len(shown.room.requests) == 11 and prompt.value == ""

    def test_the_switch_goes_back_after_a_fault_and_the_message_is_no_markup(self, shown):
        shown.mine.value = True
        assert shown.room.mine
        shown.add_ten()
        while shown.mine.value:
            shown.room._closed.wait(0.01)
        shown.wait()
        assert "Your scheduler failed" in shown._message.value
        shown._show("<script>")
        assert "<script>" not in shown._message.value

    def test_closing_stores_the_run_and_stops_the_controls(self, shown):
        shown.add("the quick brown fox")
        shown.wait()
        shown.close()
        assert all(control.disabled for control in shown._controls)
        assert "data-minillm-player" in shown.player.html()
        assert shown.player.recording.num_events > 20
