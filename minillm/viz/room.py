"""The control room's engine: it runs in its own thread while requests are added and its settings change.

A change of the pool, the policy or a part rebuilds the engine. The new engine takes over the unfinished requests
(`LLM.rebuild`), and their texts continue unchanged. A learner's scheduler or allocator can replace the package's. If it
fails, the room reports the error, restores the package's part, and submits the failed requests again.

This file does not use a browser; control_room.py has the controls for a notebook.
"""

import ctypes
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minillm.engine.request import RequestOutput
from minillm.engine.scheduler import Scheduled, Scheduler
from minillm.engine.static import StaticScheduler
from minillm.errors import MinillmError
from minillm.llm import LLM
from minillm.sampling import Sampled, SamplingParams, sample
from minillm.swap import swap

OPENINGS = (
    "Once upon a time there was a little girl who lived in a small house.",
    "Once upon a time there was a little boy who had a red boat.",
    "The old fox lived at the edge of the forest.",
    "The king had three sons, and the youngest was the kindest.",
    "One day, a small dog found a key in the garden.",
    "It was raining, and the two friends stayed at home.",
    "Deep in the sea lived a fish with silver fins.",
    "There was once a baker who sang to his bread.",
    "In the middle of the night, the clock began to speak.",
    "A rabbit and a hedgehog wanted to cross the river.",
    "The snow had covered the whole village.",
    "My grandmother had a box that no one could open.",
    "On the hill stood a mill that had no wings.",
    "The little bird could not fly yet.",
    "Far away, in a country of mountains, there lived a giant.",
)
# Small enough that a few requests fill the cache.
START = {
    "block_size": 8,
    "num_gpu_blocks_override": 48,
    "max_num_seqs": 6,
    "max_num_batched_tokens": 64,
    "max_model_len": 256,
    "scheduling_policy": "fcfs",
    "enable_prefix_caching": True,
}
PATIENCE = 5.0  # seconds that a scheduler may take for one step


@dataclass
class Submitted:
    """A request as it was submitted, and its live output."""

    prompt: str
    params: SamplingParams
    output: RequestOutput


class Room:
    """An engine in its own thread, with `scheduler` and `allocator` as the learner's parts, if given.

    `steps_per_second` limits its speed, so that a person can follow; None means no limit. `messages` lists the room's
    messages, and `on_message` is called with each of them, by any thread. Close the room to end its threads;
    `with Room(...)` does so.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        scheduler: type | None = None,
        allocator: Callable[[int], Any] | None = None,
        steps_per_second: float | None = 12,
        max_tokens: int = 48,
        on_message: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        self.own: dict[str, Any] = {
            name: part
            for name, part in (("scheduler", scheduler), ("allocator", allocator))
            if part is not None
        }
        self.steps_per_second, self.max_tokens = steps_per_second, max_tokens
        self.requests: list[Submitted] = []
        self.messages: list[str] = []
        self.mine = False  # whether the learner's parts run
        self._on_message = on_message
        self._seeds, self._openings = itertools.count(), itertools.cycle(OPENINGS)
        self._lock = threading.RLock()  # held while requests are added or the engine is rebuilt
        self._watch = Watch()
        self._closed, self._news = threading.Event(), threading.Event()
        arguments = {**START, **settings}
        with swap(**self._parts(False, arguments["scheduling_policy"])):
            self.llm = llm.variant(trace=True, **arguments)
        self.llm.start()
        self._guard = threading.Thread(target=self._run, name="minillm-room", daemon=True)
        self._guard.start()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @property
    def num_unfinished(self) -> int:
        """Return the number of requests that run, wait, or have just failed."""
        with self._lock:
            outputs = [one.output for one in self.requests]
            return sum(not output.finished or output.error is not None for output in outputs)

    def setting(self, name: str) -> Any:
        """Return the current value of an engine argument."""
        return getattr(self.llm.config, name)

    def add(self, prompt: str, **params: Any) -> bool:
        """Submit a prompt; `params` are of `SamplingParams`. Return False, with a message, if it is refused."""
        return self._submit([prompt], [self._params(**params)])

    def add_ten(self) -> bool:
        """Submit ten openings of stories, all before the next step."""
        prompts = list(itertools.islice(self._openings, 10))
        return self._submit(prompts, [self._params() for _ in prompts])

    def change(self, **settings: Any) -> bool:
        """Change engine arguments. Return False, with a message, if a request does not fit or a value is wrong."""
        return self._rebuild(self.mine, settings)

    def use(self, mine: bool) -> bool:
        """Use the learner's parts, or the package's. Return False, with a message, if the learner's fail at once."""
        if mine and not self.own:
            raise ValueError("this room has no part of yours: ControlRoom(llm, scheduler=MyScheduler)")
        return self._rebuild(mine, {})

    def wait(self) -> list[RequestOutput]:
        """Return the outputs once all requests have finished."""
        while self.num_unfinished and not self.closed:
            time.sleep(0.02)
        return [one.output for one in self.requests]

    def close(self) -> None:
        """End the engine and its threads; unfinished requests stay as they are."""
        if not self.closed:
            self._closed.set()
            self._news.set()
            self._guard.join()
            self._watch.interrupt_if_stuck(0.2)
            self.llm.close()

    def say(self, message: str) -> None:
        self.messages.append(message)
        if self._on_message is not None:
            self._on_message(message)

    def __enter__(self) -> "Room":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _params(self, **params: Any) -> SamplingParams:
        """Return the next request's parameters: defaults with a new seed, changed by the given values."""
        chosen = {"temperature": 0.8, "max_tokens": self.max_tokens, "seed": next(self._seeds), **params}
        return SamplingParams(**chosen)

    def _submit(self, prompts: list[str], params: list[SamplingParams]) -> bool:
        with self._lock:
            try:
                outputs = self.llm.submit(prompts, params, listener=lambda _: self._news.set())
            except (MinillmError, RuntimeError, ValueError) as error:
                self.say(f"Refused: {error}")
                return False
            self.requests += map(Submitted, prompts, params, outputs)
        return True

    def _parts(self, mine: bool, policy: str) -> dict[str, Any]:
        """Return the parts for `swap`: a sampler that keeps the pace, and the learner's parts, watched."""
        parts: dict[str, Any] = {"sample": self._paced_sample}
        if mine:
            ours = StaticScheduler if policy == "static" else Scheduler
            parts |= {**self.own, "scheduler": watched(self.own.get("scheduler", ours), self._watch)}
        return parts

    def _rebuild(self, mine: bool, settings: dict[str, Any]) -> bool:
        with self._lock:
            try:
                policy = settings.get("scheduling_policy", self.setting("scheduling_policy"))
                with swap(**self._parts(mine, policy)):
                    self.llm.rebuild(**settings)
            except Exception as error:  # a learner's part may raise anything
                self.say(f"Nothing was changed: {_described(error)}")
                return False
            self.mine = mine
        return True

    def _paced_sample(self, logits: Any, rows: Any, vocab_size: int) -> Sampled:
        """Sample, then wait until a step has taken its time."""
        began = time.perf_counter()
        sampled = sample(logits, rows, vocab_size)
        if self.steps_per_second is not None:
            self._closed.wait(max(0.0, began + 1 / self.steps_per_second - time.perf_counter()))
        return sampled

    def _run(self) -> None:
        """Run the guard's thread: notice failed requests, and parts that do not return."""
        while not self.closed:
            self._news.wait(0.25)
            self._news.clear()
            if self._watch.interrupt_if_stuck(PATIENCE):
                continue
            if any(one.output.error is not None for one in self.requests):
                self._recover()

    def _recover(self) -> None:
        """Report the error, restore the package's parts, and submit the failed requests again."""
        with self._lock:
            mine = self.mine
            if mine:
                self._rebuild(False, {})
            failed = [one for one in self.requests if one.output.error is not None]
            self.requests = [one for one in self.requests if one.output.error is None]
            if mine:
                self._submit([one.prompt for one in failed], [one.params for one in failed])
            said = (
                f"Your {' or '.join(self.own)} failed, and the package's runs again"
                if mine
                else "A step failed"
            )
            self.say(f"{said}: {_described(failed[0].output.error)}")


class Watch:
    """Remembers the start time and the thread of a learner's part that is running."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._thread = 0

    def __enter__(self) -> None:
        self._thread, self._since = threading.get_ident(), time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def interrupt_if_stuck(self, seconds: float) -> bool:
        """Raise StuckError in the part's thread if the part has run for `seconds`; return whether it has."""
        since = self._since
        if since is None or time.monotonic() - since < seconds:
            return False
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(StuckError))
        return True


class StuckError(RuntimeError):
    """A scheduler did not return."""

    def __init__(self) -> None:
        super().__init__(
            f"schedule() had not returned after {PATIENCE:g} seconds: look for a loop that never ends"
        )


def watched(kind: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    """Return a function that makes a scheduler of this kind and watches its `schedule`.

    Scheduling nothing while requests wait is an error, because the engine would then step forever. A scheduler that has
    failed is not called again.
    """

    def make(*arguments: Any, **named: Any) -> Any:
        scheduler = kind(*arguments, **named)
        schedule = scheduler.schedule
        faults: list[Exception] = []

        def once() -> Scheduled:
            if faults:
                raise faults[0]
            try:
                return checked()
            except Exception as fault:
                faults.append(fault)
                raise

        def checked() -> Scheduled:
            with watch:
                scheduled: Scheduled = schedule()
            if not scheduled and scheduler.has_unfinished:
                num_waiting, num_running = len(scheduler.waiting), len(scheduler.running)
                raise RuntimeError(
                    f"schedule() returned nothing, and {num_waiting} requests wait and {num_running} run: "
                    "it must schedule at least one token"
                )
            return scheduled

        scheduler.schedule = once
        return scheduler

    return make


def _described(error: BaseException | None) -> str:
    """Return the error in one line, with the line of code that raised it if that is known."""
    if error is None:
        return "no reason is known"
    text = f"{type(error).__name__}: {error}"
    frames = list(_frames(error))
    return f"{text} ({frames[-1]})" if frames else text


def _frames(error: BaseException) -> list[str]:
    found, traceback = [], error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        found.append(f"{code.co_name}, line {traceback.tb_lineno}")
        traceback = traceback.tb_next
    return found
