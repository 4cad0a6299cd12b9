"""The engine: requests in, steps, tokens out. Everything else in the package is called from `Engine.step`.

schedule  who computes how many tokens        scheduler.py
forward   the model over all of them at once  runner.py
sample    a token for whoever has reached its end
commit    tokens to their requests, finished ones out, their memory back
"""

import time
from collections.abc import Callable, Sequence
from itertools import count, pairwise

from torch import Tensor

from minillm.cache.contiguous import KVCache
from minillm.cache.manager import KVCacheManager
from minillm.engine.request import CompletionOutput, Request, RequestMetrics, RequestOutput, Status
from minillm.engine.runner import Runner, StepOutput
from minillm.engine.scheduler import Scheduled, Scheduler
from minillm.errors import RequestError
from minillm.measure.trace import (
    BlockCounts,
    Kind,
    Phases,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.model.tokenizer import Detokenizer, StopStrings, Tokenizer
from minillm.sampling import (
    Sampled,
    SamplingParams,
    SamplingRow,
    check_vocabulary,
    derive_seed,
    sample,
    sample_seed,
)

Sampler = Callable[[Tensor, Sequence[SamplingRow], int], Sampled]


class Engine:
    """Serves any number of requests at once over one model and one cache, which the runner holds.

    `memory` lends the cache's blocks, `scheduler` decides over them, `sample` is `sampling.sample` or what stands in
    its place.
    """

    def __init__(
        self,
        runner: Runner,
        memory: KVCacheManager,
        scheduler: Scheduler,
        *,
        tokenizer: Tokenizer | None = None,
        max_model_len: int,
        sample: Sampler = sample,
        seed: int = 0,
        trace: Trace | None = None,
    ) -> None:
        self.runner, self.tokenizer = runner, tokenizer
        self.memory, self.scheduler, self.sample = memory, scheduler, sample
        self.max_model_len, self.seed, self.trace = max_model_len, seed, trace
        self.keeps_cache = isinstance(runner.cache, KVCache)
        config = runner.model.config
        self.eos_token_ids = config.eos_token_ids
        # Rows of the embedding beyond the tokenizer's vocabulary are padding and mean no token.
        self.vocab_size = min(config.vocab_size, tokenizer.vocab_size) if tokenizer else config.vocab_size
        runner.vocab_size = self.vocab_size
        self._requests: dict[str, list[Request]] = {}
        self._num_arrived = self._num_steps = 0
        self._in_step = False

    @property
    def has_unfinished(self) -> bool:
        return self.scheduler.has_unfinished

    def add_request(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prompt: str | None = None,
        request_id: str | None = None,
        priority: int = 0,
    ) -> RequestOutput:
        """Queue a prompt; returns the live output that `step` fills. Under the policy "priority" a lower number is
        served first.

        Raises `RequestError` for a prompt that is empty, out of the vocabulary, or leaves no room in the context, and
        for a request that the whole cache could not hold.
        """
        if request_id is None:
            request_id = next(i for i in map(str, count(self._num_arrived)) if i not in self._requests)
        if request_id in self._requests:
            raise RequestError(
                f"request_id {request_id!r} is in use: wait for it to finish, or choose another"
            )
        ids = self._checked_prompt(prompt_token_ids)
        params = params.clone()
        check_vocabulary(params, self.vocab_size)
        bad_words = self._bad_words_ids(params)
        if params.stop and self.tokenizer is None:
            raise RequestError(
                f"stop={list(params.stop)} is looked for in the text, which needs a tokenizer, and this model's "
                "folder has none: use stop_token_ids"
            )
        if type(priority) is not int:
            raise TypeError(f"priority={priority!r} is a {type(priority).__name__}: give an integer")
        seed = params.seed if params.seed is not None else derive_seed(self.seed, self._num_arrived)
        group = RequestOutput(
            request_id,
            prompt,
            ids,
            outputs=[CompletionOutput(i) for i in range(params.n)],
            metrics=RequestMetrics(arrival_time=time.perf_counter()),
            prompt_logprobs=None if params.prompt_logprobs is None else [None],
        )
        samples = [
            self._sample_of(group, output, params, sample_seed(seed, output.index), bad_words)
            for output in group.outputs
        ]
        first, *others = samples
        self._check_capacity(first)
        for request in samples:
            request.arrival, request.priority = (self._num_arrived, request.output.index), priority
            if self.trace is not None:
                self.trace.append(RequestAdded(self.trace.now(), request.request_id, len(ids)))
        self._num_arrived += 1
        self._requests[request_id] = samples
        if self.memory.can_fork:
            first.forks = others
            self.scheduler.add(first)
        else:
            for request in samples:
                self.scheduler.add(request)
        return group

    def step(self) -> list[RequestOutput]:
        """One round of schedule, forward, sample, commit; returns the outputs that got a token.

        If any of it raises, the requests of that step are aborted, their memory comes back, and the error goes on
        to the caller; requests that still wait are untouched.
        """
        if self._in_step:
            raise RuntimeError("a step is under way: a logits processor can abort requests, but not generate")
        began = time.perf_counter()
        scheduled = self.scheduler.schedule()
        if not scheduled:
            return []
        record = None if self.trace is None else self._record(scheduled)
        copies, self.memory.copies = self.memory.copies, []
        times = [began, time.perf_counter()]
        self._in_step = True
        try:
            result = self.runner.forward(scheduled, copies)
            times.append(time.perf_counter())
            published = self._advance(scheduled, began)
            requests, logits = self._fork(result)
            rows = [request.row for request in requests]
            sampled = None if logits is None else self.sample(logits, rows, self.vocab_size)
            times.append(time.perf_counter())
            self._report_prompts(result)
            if sampled is not None:
                for error in sampled.errors.values():
                    raise error
                self._commit(requests, sampled, times[-1])
        except BaseException:
            for request, _ in scheduled:
                self.abort(request.group.request_id)
            raise
        finally:
            self._in_step = False
        if self.trace is not None and record is not None:
            times.append(time.perf_counter())
            record.phases = Phases(*(end - start for start, end in pairwise(times)))
            record.end = self.trace.now()
            record.start = record.end - (times[-1] - began)
            record.copied, record.published = copies, published
            self.trace.append(record)
        self._num_steps += 1
        return list({id(r.group): r.group for r in requests}.values())

    def abort(self, request_id: str) -> None:
        """End a request wherever it stands; what it has generated stays. Unknown and finished ids are ignored."""
        for request in self._requests.get(request_id, ()):
            if request.status is not Status.FINISHED:
                request.finish("abort")
                self._release(request)

    def _advance(self, scheduled: Scheduled, began: float) -> list[int]:
        """The scheduled tokens are computed; returns the blocks whose prefix became known by that."""
        published = []
        for request, num_tokens in scheduled:
            before = request.num_computed_tokens
            request.num_computed_tokens += num_tokens
            if request.status is Status.RUNNING:  # neither aborted in this step nor padding
                published += self.memory.publish(request, before)
            if request.group.metrics.first_scheduled_time is None:
                request.group.metrics.first_scheduled_time = began
        return published

    def _fork(self, result: StepOutput) -> tuple[list[Request], Tensor | None]:
        """Who samples, from which logits: a prompt that is computed for the first time serves all of its samples."""
        requests, rows = [], []
        for row, request in enumerate(result.sampling):
            samples = [request]
            if request.forks and request.status is Status.RUNNING:  # it may have been aborted meanwhile
                samples += self.scheduler.fork(request, request.forks)
                request.forks = []
            requests += samples
            rows += [row] * len(samples)
        forked = result.logits is not None and len(rows) > len(result.logits)
        return requests, result.logits[rows] if forked and result.logits is not None else result.logits

    def _report_prompts(self, result: StepOutput) -> None:
        for request, report in result.prompt_logprobs:
            assert request.group.prompt_logprobs is not None
            request.group.prompt_logprobs += report

    def _commit(self, requests: list[Request], sampled: Sampled, now: float) -> None:
        for request, token_id, logprobs in zip(requests, sampled.token_ids, sampled.logprobs, strict=True):
            if request.output.finish_reason is not None:  # aborted while this step was computed, or padding
                continue
            metrics = request.group.metrics
            if metrics.first_token_time is None:
                metrics.first_token_time = now
            request.append(token_id, logprobs, self.eos_token_ids)
            if self.trace is not None:
                index = len(request.output.token_ids) - 1
                self.trace.append(TokenRecord(self.trace.now(), request.request_id, index, token_id))
            if request.status is Status.FINISHED:
                self._release(request)
            elif not self.keeps_cache:
                request.num_computed_tokens = 0

    def _record(self, scheduled: Scheduled) -> StepRecord:
        """What was decided; the times are filled in when they are known."""
        memory, scheduler = self.memory, self.scheduler
        return StepRecord(
            self._num_steps,
            0.0,
            0.0,
            [_part(request, num_tokens) for request, num_tokens in scheduled],
            len(scheduler.waiting),
            len(scheduler.running),
            Phases(0.0, 0.0, 0.0, 0.0),
            BlockCounts(memory.num_blocks, memory.num_free, memory.num_cached) if self.keeps_cache else None,
            [request.request_id for request in scheduler.preempted],
        )

    def _release(self, request: Request) -> None:
        self.scheduler.release(request)
        if request.group.finished:
            request.group.metrics.finished_time = time.perf_counter()
            self._requests.pop(request.group.request_id, None)
        if self.trace is not None:
            reason = str(request.output.finish_reason)
            self.trace.append(RequestFinished(self.trace.now(), request.request_id, reason))

    def _checked_prompt(self, prompt_token_ids: Sequence[int]) -> list[int]:
        ids = list(prompt_token_ids)
        if not ids:
            raise RequestError(
                "the prompt is empty: give at least one token (text of at least one character)"
            )
        vocab_size = self.runner.model.config.vocab_size
        for i, token_id in enumerate(ids):
            if type(token_id) is not int or not 0 <= token_id < vocab_size:
                raise RequestError(
                    f"prompt_token_ids[{i}] is {token_id!r}: token ids are integers from 0 to {vocab_size - 1}"
                )
        if len(ids) >= self.max_model_len:
            raise RequestError(
                f"the prompt has {len(ids)} tokens and max_model_len is {self.max_model_len}: no room for one more "
                f"token. Shorten it to {self.max_model_len - 1} tokens, or raise max_model_len if the model allows"
            )
        return ids

    def _check_capacity(self, request: Request) -> None:
        """Refuse what would wait for ever: the last token sampled needs no place in the cache, all others do."""
        most = request.num_prompt_tokens + request.max_tokens - 1
        if most > self.memory.capacity:
            raise RequestError(
                f"{request.num_prompt_tokens} prompt tokens and max_tokens={request.max_tokens} need room for {most} "
                f"tokens, and the whole KV cache has {self.memory.num_blocks} blocks of {self.memory.block_size} = "
                f"{self.memory.capacity}: lower max_tokens, shorten the prompt, or give the cache more memory"
            )

    def _bad_words_ids(self, params: SamplingParams) -> tuple[tuple[int, ...], ...]:
        """Each bad word as it is spelled at the start of a text and after a space."""
        if not params.bad_words:
            return ()
        if self.tokenizer is None:
            raise RequestError(
                "bad_words needs a tokenizer, and this model's folder has none: use logit_bias with ids"
            )
        spelled = [w for word in params.bad_words for w in (word, " " + word.lstrip())]
        return tuple({tuple(self.tokenizer.encode(word, add_special_tokens=False)): None for word in spelled})

    def _sample_of(
        self,
        group: RequestOutput,
        output: CompletionOutput,
        params: SamplingParams,
        seed: int,
        bad_words: tuple[tuple[int, ...], ...],
    ) -> Request:
        if params.logprobs is not None:
            output.logprobs, output.cumulative_logprob = [], 0.0
        room = self.max_model_len - len(group.prompt_token_ids)
        return Request(
            request_id=group.request_id if params.n == 1 else f"{group.request_id}.{output.index}",
            params=params,
            token_ids=list(group.prompt_token_ids),
            num_prompt_tokens=len(group.prompt_token_ids),
            max_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
            row=SamplingRow(
                params, seed, group.prompt_token_ids, output.token_ids, self.eos_token_ids, bad_words
            ),
            output=output,
            group=group,
            stop_strings=StopStrings(params.stop or ()),
            detokenizer=Detokenizer(self.tokenizer, params.skip_special_tokens)
            if self.tokenizer is not None and params.detokenize
            else None,
        )


def _part(request: Request, num_tokens: int) -> ScheduledRequest:
    computed = request.num_computed_tokens
    kind: Kind = "prefill"  # so is what a preempted request computes again, its outputs included
    if request.status is Status.FINISHED:
        kind = "padding"
    elif computed >= request.num_prompt_tokens and computed == request.num_tokens - 1:
        kind = "decode"
    # A hit is told once: with the first tokens that are computed after it.
    cached = request.num_cached_tokens if computed == request.num_cached_tokens else 0
    return ScheduledRequest(
        request.request_id, kind, computed, num_tokens, cached, request.block_table.tolist()
    )
