"""The registry: the models that a server offers, each with one or more replicas.

A replica is an engine with its own thread and cache. The replicas of one name have the same weights. Engines on a CPU
share its cores, so their steps run alternately. If an error ends the thread of a replica, a new engine takes its place,
unless that has happened too often.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future

from minillm.engine.loop import Listener
from minillm.engine.request import RequestOutput
from minillm.engine.turns import Turns
from minillm.errors import RequestError
from minillm.llm import LLM
from minillm.sampling import SamplingParams
from minillm.serving.admission import retry_after
from minillm.serving.routing import Candidate, least_loaded, prefix_aware

ROUTING = {"prefix": prefix_aware, "load": least_loaded}
MAX_RESTARTS = 3  # within RESTART_WINDOW seconds
RESTART_WINDOW = 600.0
RATE_WINDOW = 5.0  # seconds over which finished requests are counted


class UnavailableError(RuntimeError):
    """A request that the server cannot serve now. It can be sent again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OverloadedError(UnavailableError):
    """A request that came while the queue of its model was full."""


class Replica:
    """An LLM with its thread, its load and its health. `index` counts the replicas of one name.

    `counts_load` is false for the only replica of a name, which nobody compares with another one.
    """

    def __init__(self, name: str, index: int, llm: LLM, turns: Turns, counts_load: bool) -> None:
        self.name, self.index, self.llm, self.counts_load = name, index, llm, counts_load
        self.failure: BaseException | None = None  # why the engine is not restarted any more
        self.counters = llm.engine.counters
        self.default_params = llm.get_default_sampling_params()
        self._restarts: deque[float] = deque(maxlen=MAX_RESTARTS)
        self._rates: deque[tuple[float, int]] = deque(maxlen=64)
        # The tokens that requests may still need: of those that the engine's thread has not taken yet, and of the
        # others, for which the prompt's part is apart.
        self._adding: dict[int, int] = {}
        self._unfinished: dict[int, tuple[RequestOutput, int, int]] = {}
        llm.supervise(turns, self._restart)
        llm.start()

    @property
    def health(self) -> str:
        if self.failure is not None:
            return f"failed: {type(self.failure).__name__} ended the engine more than {MAX_RESTARTS} times"
        return "ok" if self.llm.alive else "restarting"

    @property
    def num_running(self) -> int:
        return len(self.llm.engine.scheduler.running) if self.llm.alive else 0

    @property
    def num_waiting(self) -> int:
        return len(self._adding) + (len(self.llm.engine.scheduler.waiting) if self.llm.alive else 0)

    @property
    def kv_cache_usage(self) -> float:
        """Return the share of the cache's blocks that requests hold."""
        if not self.llm.alive:
            return 0.0
        memory = self.llm.engine.memory
        return 1 - memory.num_free / memory.num_blocks

    def candidate(self, prompt_token_ids: Sequence[int]) -> Candidate:
        unfinished = sum(list(self._adding.values()))
        for output, num_prompt, num_tokens in list(self._unfinished.values()):
            generated = sum(len(sample.token_ids) for sample in output.outputs)
            unfinished += max(0, num_tokens - generated - (num_prompt if generated else 0))
        return Candidate(unfinished, self.llm.engine.memory.count_cached_tokens(prompt_token_ids))

    @property
    def full(self) -> bool:
        """Return whether the queue has no room for another request."""
        limit = self.llm.config.max_num_waiting
        return limit is not None and self.num_waiting >= limit

    def check_admission(self) -> None:
        """Raise `OverloadedError` if the queue is full, with the time after which it should have room."""
        limit = self.llm.config.max_num_waiting
        if limit is None:
            return
        seconds = retry_after(self.num_waiting, limit, self._finished_per_second())
        if seconds is not None:
            raise OverloadedError(
                f"{self.num_waiting} requests are waiting for {self.name!r}, and the limit is {limit}: "
                f"try again in {seconds} s",
                seconds,
            )

    def enqueue(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prompt: str | None,
        priority: int,
        listener: Listener,
    ) -> Future[RequestOutput]:
        """Queue a prompt; the future is that of `LLM.enqueue`."""
        room = self.llm.engine.max_model_len - len(prompt_token_ids)
        num_prompt = len(prompt_token_ids)
        if self.counts_load:
            num_prompt -= self.llm.engine.memory.count_cached_tokens(prompt_token_ids)
        num_tokens = num_prompt + params.n * min(room, params.max_tokens or room)

        def added(future: Future[RequestOutput]) -> None:
            if not future.cancelled() and future.exception() is None:
                output = future.result()
                self._unfinished[id(output)] = output, num_prompt, num_tokens
            self._adding.pop(id(future), None)

        adding = self.llm.enqueue(
            prompt_token_ids, params, prompt=prompt, priority=priority, listener=listener
        )
        self._adding[id(adding)] = num_tokens
        adding.add_done_callback(added)
        return adding

    def release(self, outputs: Sequence[RequestOutput]) -> None:
        """End these requests if they have not finished, and stop counting them as load."""
        for output in outputs:
            self._unfinished.pop(id(output), None)
        if unfinished := [output for output in outputs if not output.finished]:
            self.llm.abort(unfinished)

    def abort_all(self) -> None:
        """End all requests of this replica."""
        self.release([output for output, _, _ in list(self._unfinished.values())])

    def explain(self, error: BaseException) -> BaseException:
        """Return what to tell the user of a request that ended with `error`: its own error, or the engine's."""
        if self.llm.blames_engine(error):
            return UnavailableError(f"the engine of {self.name!r} failed while it served this request")
        return RequestError(str(error)) if isinstance(error, ValueError) else error

    def _finished_per_second(self) -> float:
        now, finished = time.monotonic(), sum(self.counters.finished.values())
        if not self._rates or now - self._rates[-1][0] > RATE_WINDOW / 32:
            self._rates.append((now, finished))
        while len(self._rates) > 1 and now - self._rates[0][0] > RATE_WINDOW:
            self._rates.popleft()
        since, before = self._rates[0]
        return (finished - before) / (now - since) if now > since else 0.0

    def _restart(self, error: BaseException) -> None:
        """Continue with a new engine. The ending thread of the old one calls this."""
        now = time.monotonic()
        if len(self._restarts) == MAX_RESTARTS and now - self._restarts[0] < RESTART_WINDOW:
            self.failure = error
            return
        self._restarts.append(now)
        try:
            self.llm.rebuild()
            self.llm.engine.counters = self.counters
        except Exception as failed:
            self.failure = failed


class Registry:
    """The replicas of each model by its name, and the choice among them.

    `models` maps a name to an LLM or to several; all of them must be new or idle. `routing` is "prefix" or "load".
    """

    def __init__(self, models: Mapping[str, LLM | Sequence[LLM]], routing: str = "prefix") -> None:
        if not models:
            raise ValueError("there are no models: give at least one")
        if routing not in ROUTING:
            raise ValueError(f"routing={routing!r} is not supported: use {' or '.join(map(repr, ROUTING))}")
        self.route = ROUTING[routing]
        self.created = int(time.time())
        turns = Turns()
        self.replicas: dict[str, list[Replica]] = {}
        for name, llms in models.items():
            several = [llms] if isinstance(llms, LLM) else list(llms)
            self.replicas[name] = [
                Replica(name, i, llm, turns if llm.model.device.type == "cpu" else Turns(), len(several) > 1)
                for i, llm in enumerate(several)
            ]

    def __iter__(self) -> Iterator[Replica]:
        return (replica for several in self.replicas.values() for replica in several)

    def find(self, name: str | None) -> Replica:
        """Return the first replica of a model, for its tokenizer and settings. None is the server's first model.

        Raises `KeyError` for a model that the server does not have.
        """
        return self.replicas[next(iter(self.replicas)) if name is None else name][0]

    def check_admission(self, name: str) -> None:
        """Raise `OverloadedError` if the queues of all replicas of a model are full."""
        min(self.replicas[name], key=lambda replica: replica.num_waiting).check_admission()

    def choose(self, name: str, prompt_token_ids: Sequence[int]) -> Replica:
        """Return the replica of `name` that serves this prompt. Raises `UnavailableError` if none can."""
        alive = [replica for replica in self.replicas[name] if replica.llm.alive]
        if not alive:
            raise UnavailableError(f"the engine of {name!r} is not running ({self.replicas[name][0].health})")
        able = [replica for replica in alive if not replica.full] or alive
        if len(able) == 1:
            return able[0]
        candidates = [replica.candidate(prompt_token_ids) for replica in able]
        return able[self.route(candidates, len(prompt_token_ids))]

    def close(self) -> None:
        """Stop all engines and give their memory back."""
        for replica in self:
            replica.llm.close()
