"""The engine: it takes requests, runs steps and returns tokens. `Engine.step` calls everything else in the package.

schedule  choose requests and their numbers of tokens     scheduler.py, step.py
forward   run the model over all of these tokens at once  runner.py
sample    choose a token for each row that needs one; verify drafts
commit    give tokens to their requests, publish full blocks, free the blocks of finished requests
draft     propose the tokens that the next step verifies  proposer.py

An error stays with the request that caused it. If the engine cannot sample one row, or cannot decode its text, that
request ends with "error" and the others continue. An error of the whole step (of the model, of a part of the engine,
Ctrl-C) goes to the caller of `step`. Before that, `recover` frees every block and returns every surviving request to
the waiting queue.
"""

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count, pairwise
from threading import current_thread, main_thread
from typing import Any

import torch
from torch import Tensor

from minillm.cache.manager import KVCacheManager
from minillm.engine.counters import EngineCounters
from minillm.engine.proposer import Computed, Part, Proposer
from minillm.engine.request import CompletionOutput, Request, RequestMetrics, RequestOutput, Status
from minillm.engine.runner import Runner
from minillm.engine.scheduler import Scheduled, Scheduler
from minillm.engine.step import LogitRows, StepInput
from minillm.errors import QueueFullError, RequestError
from minillm.measure.trace import (
    EngineReset,
    Kind,
    Origin,
    Phases,
    RequestAdded,
    RequestFinished,
    RequestState,
    ScheduledRequest,
    Snapshot,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.model.tokenizer import Detokenizer, StopStrings, Tokenizer
from minillm.sampling import (
    NO_TOKEN,
    Drafts,
    Forbidden,
    Logprob,
    Sampled,
    SamplingParams,
    SamplingRow,
    check_vocabulary,
    derive_seed,
    gather_logprobs,
    sample,
    sample_seed,
    verify,
)


class StepUnderWayError(RuntimeError):
    """The engine was called from within its own step, by a logits processor for example."""


Sampler = Callable[[Tensor, Sequence[SamplingRow], int], Sampled]
Verifier = Callable[[Tensor, Sequence[SamplingRow], Sequence[Drafts], int], Sampled]


class Engine:
    """Serves any number of requests at once with one model and one cache, which the runner holds.

    `memory` allocates the cache's blocks, and `scheduler` plans each step. `sample` and `verify` are those of
    `sampling` or their replacements. `proposer` drafts tokens. The engine refuses more than `max_num_waiting` waiting
    requests; None means no limit. Its methods are not thread-safe; those of engine/loop.py are.
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
        verify: Verifier = verify,
        proposer: Proposer | None = None,
        max_num_waiting: int | None = None,
        seed: int = 0,
        trace: Trace | None = None,
    ) -> None:
        self.runner, self.tokenizer = runner, tokenizer
        self.memory, self.scheduler, self.sample, self.verify = memory, scheduler, sample, verify
        self.proposer = proposer
        self.depends_on_timing = False  # whether the speed of the machine can change a sampled text
        self.max_model_len, self.max_num_waiting = max_model_len, max_num_waiting
        self.seed, self.trace = seed, trace
        self.counters = EngineCounters()
        config = runner.model.config
        ends = (tokenizer.eos_token_id if tokenizer else None, *config.eos_token_ids)
        # The tokenizer's end token comes first. It may be one that the model's configuration does not list.
        self.eos_token_ids = tuple(dict.fromkeys(i for i in ends if i is not None and i < config.vocab_size))
        # Rows of the embedding beyond the tokenizer's vocabulary are padding and stand for no token.
        self.vocab_size = min(config.vocab_size, tokenizer.vocab_size) if tokenizer else config.vocab_size
        self._requests: dict[str, list[Request]] = {}  # the samples of every unfinished request
        self._num_arrived = self._num_steps = 0
        self._changing = (
            False  # True while the queues change, and after a change that an exception interrupted
        )
        self._in_step: Scheduled | None = (
            None  # the requests of the current step, None before they are scheduled
        )
        self._aborts: list[str] = []  # ids to abort once the current change has ended
        self.last_error: BaseException | None = None  # the last error that ended the requests of a step

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
        """Queue a prompt and return its live output, which `step` fills.

        Under the policy "priority", a lower `priority` is served first. Raises `RequestError` if the prompt is empty,
        has ids outside of the vocabulary, leaves no room in the context, or needs more than the whole cache. Raises
        `QueueFullError` if too many requests wait.
        """
        if self.max_num_waiting is not None and len(self.scheduler.waiting) >= self.max_num_waiting:
            raise QueueFullError(
                f"{len(self.scheduler.waiting)} requests are waiting and max_num_waiting is {self.max_num_waiting}: "
                "try again later, or raise max_num_waiting"
            )
        if request_id is None:
            request_id = next(i for i in map(str, count(self._num_arrived)) if i not in self._requests)
        if request_id in self._requests:
            raise RequestError(
                f"request_id {request_id!r} is in use: wait for it to finish, or choose another"
            )
        if type(priority) is not int:
            raise TypeError(f"priority={priority!r} is a {type(priority).__name__}: give an integer")
        samples = self._samples(request_id, self._checked_prompt(prompt_token_ids), params, prompt, priority)
        first, *others = samples
        self._begin()
        try:
            self._requests[request_id] = samples
            if self.memory.can_fork:
                first.forks = others
                self.scheduler.add(first)
            else:
                for request in samples:
                    self.scheduler.add(request)
            self._num_arrived += 1
            self._changing = False
        except BaseException:
            self._requests.pop(request_id, None)
            self.recover()
            raise
        if self.trace is not None:
            now = self.trace.now()
            for request in samples:
                ids = request.token_ids[: request.num_prompt_tokens]
                self.trace.append(RequestAdded(now, request.request_id, len(ids), ids))
        return first.result

    def step(self) -> list[RequestOutput]:
        """Run one round of schedule, forward, sample and commit. Return the outputs that got a token or ended.

        An error that belongs to one request is stored in its output. Any other error is raised. It also ends the
        requests of the step, or all unfinished requests if it came before the schedule. Ctrl-C ends no request; each
        continues from its last token.
        """
        self._begin()
        try:
            outputs = self._step()
            self._changing = False
        except BaseException as error:
            # Ctrl-C reaches the main thread only, and is not an error of the step.
            interrupted = isinstance(error, KeyboardInterrupt) and current_thread() is main_thread()
            self.recover(None if interrupted else error)
            raise
        while self._aborts:
            request_id = self._aborts.pop()
            outputs += [samples[0].result for samples in (self._requests.get(request_id),) if samples]
            self.abort(request_id)
        return list({id(output): output for output in outputs}.values())

    def abort(self, request_id: str) -> None:
        """End a request in any state, and keep its generated tokens. Unknown and finished ids are ignored.

        If it is called during a step (by a logits processor, or the garbage collector), the request ends with the step.
        """
        if self._changing:
            self._aborts.append(request_id)
            return
        self._begin()
        try:
            for request in self._requests.get(request_id, ()):
                if request.output.finish_reason is None:
                    request.abort()
                    self._release(request)
            self._changing = False
        except BaseException:
            self.recover()
            raise

    def watch(self, trace: Trace | None) -> None:
        """Write the records of all later steps into `trace`, after a snapshot of the state. None stops them.

        A second call with the same trace writes one more snapshot, from which a reader can begin.
        """
        self.trace = trace
        if trace is not None:
            trace.append(self._snapshot(trace.now()))

    def recover(self, error: BaseException | None = None) -> None:
        """Restore a consistent state if an exception has interrupted a change of the queues. Otherwise do nothing.

        All blocks become free and the prefix cache empty. Unfinished requests return to the waiting queue with the
        tokens that they have. If `error` is given, the requests of the interrupted step end with it instead.
        """
        if not self._changing:
            return
        if self.trace is not None:
            reason = "" if error is None else f"{type(error).__name__}: {error}"
            self.trace.append(EngineReset(self.trace.now(), reason))
        self._restart(error)

    def fail_all(self, error: BaseException) -> list[RequestOutput]:
        """End every unfinished request with `error`, and return their outputs. Free every block."""
        outputs = [samples[0].result for samples in self._requests.values()]
        self._in_step, self._changing = None, True
        self._restart(error)
        return outputs

    def take_over(self, other: "Engine", settings: Mapping[str, int | str]) -> None:
        """Continue the unfinished requests of `other`, which must not be used afterwards.

        They join the waiting queue with the tokens that they have, so their texts continue unchanged. The trace
        continues too if both engines record one, and `settings` are written into it.

        Raises `RequestError`, and leaves `other` unchanged, if a request is too long for this engine.
        """
        for samples in other._requests.values():
            for request in samples:
                self._check_capacity(request)
        other._begin()
        self._requests, self._num_arrived, self._num_steps = (
            other._requests,
            other._num_arrived,
            other._num_steps,
        )
        self.counters = other.counters
        if self.trace is not None:
            self.trace = other.trace if other.trace is not None else self.trace
            self.trace.append(EngineReset(self.trace.now(), "rebuilt", dict(settings)))
        self._begin()
        self._restart()

    def _restart(self, error: BaseException | None = None) -> None:
        """Free every block and return every unfinished request to the queue. With `error`, end those of the step."""
        requests = [request for samples in self._requests.values() for request in samples]
        unfinished = [request for request in requests if request.output.finish_reason is None]
        self.last_error = error
        in_step = requests if self._in_step is None else [request for request, _ in self._in_step]
        concerned = {id(request.result) for request in in_step}
        self.memory.reset()
        for request in unfinished:
            try:
                request.restore()
            except Exception as own:  # for example an error of its tokenizer
                request.fail(own)
            if request.status is Status.FINISHED:
                continue
            if error is not None and id(request.result) in concerned:
                request.fail(error)
            elif request.result.request_id in self._aborts:
                request.abort()
        self._aborts = []
        self.scheduler.reset([request for request in unfinished if request.status is not Status.FINISHED])
        for request in unfinished:
            if request.status is Status.FINISHED:
                self._record_end(request)
        self._requests = {
            i: samples for i, samples in self._requests.items() if not samples[0].result.finished
        }
        self._changing = False

    def _begin(self) -> None:
        if self._changing:
            raise StepUnderWayError(
                "a step is under way, so the engine cannot be called. A logits processor may abort requests, but it "
                "must not add or generate any"
            )
        self._in_step, self._changing = None, True

    def _step(self) -> list[RequestOutput]:
        began, scheduled_ts = time.perf_counter(), time.monotonic()
        scheduled = self.scheduler.schedule()
        if not scheduled:
            return []
        self._in_step = scheduled
        self.counters.preemptions += len(self.scheduler.preempted)
        record = None if self.trace is None else self._record(scheduled)
        copies, self.memory.copies = self.memory.copies, []
        step, owners = StepInput.of(scheduled, copies, None if self.proposer is None else self.proposer.taps)
        times = [began, time.perf_counter()]
        output = self.runner.run(step)
        times.append(time.perf_counter())
        self._advance(scheduled, scheduled_ts)
        requests, logits, failed = self._samplers(owners, output.logits)
        sampled = self._sampled(requests, logits)
        times.append(time.perf_counter())
        if sampled is not None:
            self._commit(requests, sampled)
        self._discard_rejected(scheduled)
        times.append(time.perf_counter())
        if self.proposer is not None:
            parts = self._parts(scheduled, step, requests, self.proposer)
            seconds = times[-1] - began
            num_tokens = sum(num_tokens for _, num_tokens in scheduled)
            computed = Computed(parts, output.hidden, seconds, len(scheduled), num_tokens)
            copies = copies + self._draft(computed, self.proposer)
        times.append(time.perf_counter())
        published = self._publish(scheduled)
        for request in (*requests, *failed):
            if request.status is Status.FINISHED:
                self._release(request)
        if self.trace is not None and record is not None:
            times.append(time.perf_counter())
            schedule, forward, sampling, commit, draft, publish = (
                end - start for start, end in pairwise(times)
            )
            record.phases = Phases(schedule, forward, sampling, commit + publish, draft)
            record.end = self.trace.now()
            record.start = record.end - (times[-1] - began)
            record.copied, record.published = copies, published
            self.trace.append(record)
        self._num_steps += 1
        return [request.result for request in (*requests, *failed)]

    def _advance(self, scheduled: Scheduled, scheduled_ts: float) -> None:
        """Count the scheduled tokens as computed."""
        for request, num_tokens in scheduled:
            result = request.result
            if result.num_cached_tokens is None:
                result.num_cached_tokens = request.num_cached_tokens
                result.metrics.scheduled_ts = scheduled_ts
                if self.memory.prefix is not None:
                    self.counters.prefix_cache_queries += request.num_prompt_tokens
                    self.counters.prefix_cache_hits += min(
                        request.num_cached_tokens, request.num_prompt_tokens
                    )
            request.num_computed_tokens += num_tokens

    def _samplers(
        self, owners: Sequence[LogitRows], logits: Tensor | None
    ) -> tuple[list[Request], Tensor | None, list[Request]]:
        """Add prompt logprobs, and pair each sampling request with its rows of logits.

        Return the sampling requests, their logits [N, vocab] in the same order, and the requests that failed. When a
        prompt finishes prefill, its n samples are forked and share its row.
        """
        requests, rows, start, failed = list[Request](), list[int](), 0, list[Request]()
        if logits is None:
            return requests, None, failed
        for owner in owners:
            request, num_prompt_rows, num_samples = owner
            end = start + num_prompt_rows
            if num_prompt_rows:
                failed += self._report_prompt(request, logits[start:end])
            if num_samples and request.status is not Status.FINISHED:
                requests.append(request)
                rows += range(end, end + num_samples)
                if request.forks:
                    forks, request.forks = request.forks, []
                    requests += (started := self.scheduler.fork(request, forks))
                    rows += [end] * len(started)
            start = end + num_samples
        return requests, logits if rows == list(range(len(logits))) else logits[rows], failed

    def _report_prompt(self, request: Request, logits: Tensor) -> list[Request]:
        """Add the logprobs of the next n prompt tokens, from the `logits` [n, vocab] of the positions before them.

        If that fails, the request and the samples that wait for its prompt fail too. Return the failed requests.
        """
        known, failed = request.result.prompt_logprobs, list[Request]()
        assert known is not None
        ids = torch.tensor(request.token_ids[len(known) : len(known) + len(logits)], device=logits.device)
        report = gather_logprobs(logits, ids, request.params.prompt_logprobs or 0, self.vocab_size)
        try:
            for one in report:
                known.append(
                    self._named(request, one, request.token_ids[max(1, len(known) - 4) : len(known)])
                )
        except Exception as error:
            failed = [request, *request.forks]
            for sample in failed:
                sample.fail(error)
        return failed

    def _named(
        self, request: Request, report: dict[int, Logprob], before: Sequence[int]
    ) -> dict[int, Logprob]:
        """Return `report` after filling in the text that each of its tokens has when it follows the tokens `before`."""
        if self.tokenizer is not None and request.params.detokenize:
            for token_id, logprob in report.items():
                logprob.decoded_token = self.tokenizer.token_text(token_id, before)
        return report

    def _sampled(self, requests: Sequence[Request], logits: Tensor | None) -> Sampled | None:
        """Return the tokens of each request: one for each of its rows, of which a draft may be the first to differ.

        If every draft is certain, its verification is sampling. The token of a row is drawn as if there were no drafts,
        and it is kept while the draft before it was equal to the token. Only drafts with distributions need `verify`.
        """
        rows = list(chain.from_iterable([request.rows() for request in requests]))
        if logits is None or not rows:
            return None
        if not any(request.drafts and request.draft_probs is not None for request in requests):
            return self.sample(logits, rows, self.vocab_size)
        drafts = [
            Drafts(
                request.drafts,
                None if request.draft_probs is None else request.draft_probs[: len(request.drafts)],
            )
            for request in requests
        ]
        return self.verify(logits, rows, drafts, self.vocab_size)

    def _commit(self, requests: Sequence[Request], sampled: Sampled) -> None:
        """Give each request its tokens, up to and including the first one that differs from its draft or ends it."""
        start, now = 0, time.monotonic()
        for request in requests:
            drafts, request.drafts = request.drafts, []
            metrics = request.result.metrics
            before = metrics.num_generation_tokens, metrics.num_accepted_tokens, metrics.last_token_ts
            try:
                self._take(request, drafts, sampled, start, now)
            except Exception as error:
                request.fail(error)
            self._count(request, before, len(drafts))
            start += 1 + len(drafts)

    def _take(
        self, request: Request, drafts: Sequence[int], sampled: Sampled, start: int, now: float
    ) -> None:
        metrics, moment = request.result.metrics, 0.0 if self.trace is None else self.trace.now()
        metrics.num_draft_tokens += len(drafts)
        for i, draft in enumerate([*drafts, None]):
            if start + i in sampled.errors:
                request.fail(sampled.errors[start + i])
                return
            if sampled.token_ids[start + i] == NO_TOKEN:
                return
            token_id, report = sampled.token_ids[start + i], sampled.logprobs[start + i]
            metrics.first_token_ts, metrics.last_token_ts = metrics.first_token_ts or now, now
            metrics.num_generation_tokens += 1
            metrics.num_accepted_tokens += token_id == draft
            request.append(
                token_id,
                report and self._named(request, report, request.output.token_ids),
                self.eos_token_ids,
            )
            if self.trace is not None:
                origin: Origin = "sampled"
                if drafts:
                    origin = "bonus" if draft is None else "accepted" if token_id == draft else "corrected"
                index = len(request.output.token_ids) - 1
                self.trace.append(TokenRecord(moment, request.request_id, index, token_id, origin))
            if token_id != draft or request.status is Status.FINISHED:
                return

    def _count(self, request: Request, before: tuple[int, int, float], num_drafts: int) -> None:
        """Count what a step gave to a request. `before` it had so many tokens, accepted drafts, and its last token."""
        counters, now = self.counters, request.result.metrics
        num_before, num_accepted, last_token_ts = before
        num_tokens = now.num_generation_tokens - num_before
        counters.generation_tokens += num_tokens
        if num_drafts:
            counters.num_drafts += 1
            counters.num_draft_tokens += num_drafts
            counters.num_accepted_tokens += now.num_accepted_tokens - num_accepted
        if not num_tokens:
            return
        if not last_token_ts:
            counters.prompt_tokens += request.num_prompt_tokens
            counters.time_to_first_token.observe(now.first_token_ts - now.queued_ts)
        elif now.last_token_ts > last_token_ts:
            counters.inter_token_latency.observe(now.last_token_ts - last_token_ts)

    def _discard_rejected(self, scheduled: Scheduled) -> None:
        """Stop counting the keys and values of rejected drafts. The newest token has none yet."""
        for request, _ in scheduled:
            request.num_computed_tokens = min(request.num_computed_tokens, request.num_tokens - 1)

    def _publish(self, scheduled: Scheduled) -> list[int]:
        """Publish the blocks that are full of computed tokens. Return those whose content became known."""
        published = []
        for request, _ in scheduled:
            if request.output.error is None:  # the blocks of a failed request may be wrong
                published += self.memory.publish(request)
        return published

    def _parts(
        self, scheduled: Scheduled, step: StepInput, requests: Sequence[Request], proposer: Proposer
    ) -> list[Part]:
        """Return the step's parts for the proposer. `requests` have sampled; each fork follows its parent there."""
        places, row = dict[str, tuple[int, int]](), 0
        for (request, num_tokens), chunk in zip(scheduled, step.chunks, strict=True):
            places[request.request_id] = row, chunk.num_computed
            row += num_tokens
        sampling = {request.request_id for request in requests}
        parts, place = list[Part](), (0, 0)
        for request in (*requests, *(r for r, _ in scheduled if r.request_id not in sampling)):
            place = places.get(request.request_id, place)  # a fork has its parent's place
            if request.status is Status.RUNNING:
                # The last token of a request is never a draft: it is sampled after its last accepted draft.
                room = request.max_tokens - len(request.output.token_ids) - 1
                limit = min(room, proposer.num_speculative_tokens) if request.request_id in sampling else 0
                parts.append(Part(request, *place, limit))
            elif (
                request.output.error is None
                and proposer.cache is not None
                and self.memory.can_publish(request)
            ):
                parts.append(Part(request, *place, 0))
        return parts

    def _draft(self, computed: Computed, proposer: Proposer) -> list[tuple[int, int]]:
        """Set the drafts of each request. Return the blocks that were copied for them, as pairs (from, to)."""
        copies = list[tuple[int, int]]()
        if proposer.cache is not None:
            for i, part in enumerate(computed.parts):
                part.request.drafts = [0] * part.limit  # drafts to come
                if part.limit and not self.memory.grow(part.request):
                    part.request.drafts = []
                    computed.parts[i] = replace(part, limit=0)
            copies, self.memory.copies = self.memory.copies, []
            if copies:
                self.runner.copy_blocks(copies)
        found = proposer.propose(computed)
        if len(found) != len(computed.parts):
            raise ValueError(
                f"the proposer returned drafts for {len(found)} requests, but {len(computed.parts)} were asked for: "
                "return one Drafts for each part"
            )
        for part, drafts in zip(computed.parts, found, strict=True):
            part.request.drafts = self._checked_drafts(part.request, drafts.token_ids[: part.limit])
            part.request.draft_probs = drafts.probs
        return copies

    def _checked_drafts(self, request: Request, drafts: Sequence[int]) -> list[int]:
        """Return the drafts as Python ints; they may be NumPy's. Raises `ValueError` for ids that the model lacks."""
        ids, vocab_size = [_to_token_id(draft) for draft in drafts], self.runner.model.config.vocab_size
        for draft, token_id in zip(drafts, ids, strict=True):
            if not 0 <= token_id < vocab_size:
                raise ValueError(
                    f"request {request.request_id!r} got the draft {draft!r}: drafts are token ids, which are "
                    f"integers from 0 to {vocab_size - 1}"
                )
        return ids

    def _record(self, scheduled: Scheduled) -> StepRecord:
        """Return a record of the step's plan. Its times are filled in later."""
        busy = {request.request_id for request, _ in scheduled}
        idle = [request for request in self.scheduler.running if request.request_id not in busy]
        return StepRecord(
            self._num_steps,
            0.0,
            0.0,
            [_part(request, num_tokens) for request, num_tokens in scheduled],
            len(self.scheduler.waiting),
            len(self.scheduler.running),
            Phases(0.0, 0.0, 0.0, 0.0),
            self.memory.counts(),
            [request.request_id for request in self.scheduler.preempted],
            idle_tables={request.request_id: request.block_table.tolist() for request in idle},
        )

    def _snapshot(self, time: float) -> Snapshot:
        requests = [request for samples in self._requests.values() for request in samples]
        unfinished = [request for request in requests if request.status is not Status.FINISHED]
        padding = [request for request in self.scheduler.running if request.status is Status.FINISHED]
        return Snapshot(
            time,
            self._num_steps,
            [
                RequestState(
                    request.request_id,
                    request.num_prompt_tokens,
                    list(request.token_ids),
                    request.num_computed_tokens,
                    request.block_table.tolist(),
                    request.output.finish_reason,
                )
                for request in (*padding, *unfinished)
            ],
            self.memory.counts(),
            self.memory.known(),
        )

    def _release(self, request: Request) -> None:
        self.scheduler.release(request)
        if request.result.finished:
            self._requests.pop(request.result.request_id, None)
        self._record_end(request)

    def _record_end(self, request: Request) -> None:
        self.counters.finished[str(request.output.finish_reason)] += 1
        self.counters.e2e_request_latency.observe(time.monotonic() - request.result.metrics.queued_ts)
        if self.trace is not None:
            reason = str(request.output.finish_reason)
            self.trace.append(RequestFinished(self.trace.now(), request.request_id, reason))

    def _checked_prompt(self, prompt_token_ids: Sequence[int]) -> list[int]:
        """Return the ids as Python ints; they may be NumPy's. Raises `RequestError` for ids that cannot be served."""
        ids = list(prompt_token_ids)
        if not ids:
            raise RequestError(
                "the prompt is empty: give at least one token (text of at least one character)"
            )
        vocab_size = self.runner.model.config.vocab_size
        for i, token_id in enumerate(ids):
            ids[i] = _to_token_id(token_id)
            if not 0 <= ids[i] < vocab_size:
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
        """Raise `RequestError` for a request that exceeds the context or the whole cache, and would wait forever."""
        if request.max_cached_tokens >= self.max_model_len:
            raise RequestError(
                f"{request.num_prompt_tokens} prompt tokens and max_tokens={request.max_tokens} exceed max_model_len="
                f"{self.max_model_len}: lower max_tokens, shorten the prompt, or raise max_model_len"
            )
        if request.max_cached_tokens > self.memory.capacity:
            raise RequestError(
                f"{request.num_prompt_tokens} prompt tokens and max_tokens={request.max_tokens} need room for "
                f"{request.max_cached_tokens} tokens, and the whole KV cache has {self.memory.num_blocks} blocks of "
                f"{self.memory.block_size} = {self.memory.capacity}: lower max_tokens, shorten the prompt, or give the "
                "cache more memory"
            )

    def _forbid_bad_words(self, params: SamplingParams) -> Forbidden | None:
        if not params.bad_words:
            return None
        if self.tokenizer is None:
            raise RequestError(
                "bad_words needs a tokenizer, but this model's folder has none: use logit_bias with ids"
            )
        return self.tokenizer.forbid_words(params.bad_words)

    def _samples(
        self, request_id: str, ids: list[int], params: SamplingParams, prompt: str | None, priority: int
    ) -> list[Request]:
        """Return the n samples of a prompt, ready to be queued."""
        params = params.clone()  # checks them again, because the user may have changed a field
        check_vocabulary(params, self.vocab_size)
        bad_words = self._forbid_bad_words(params)
        if params.stop and self.tokenizer is None:
            raise RequestError(
                f"stop={list(params.stop)} is searched for in the text, which needs a tokenizer. This model's "
                "folder has none: use stop_token_ids"
            )
        if params.seed is not None and self.depends_on_timing:
            raise RequestError(
                f"seed={params.seed} cannot fix a text if the speed of the machine decides how many drafts are sampled "
                "(adaptive=True with draft_sample_method='probabilistic'): leave out the seed, set adaptive=False, or "
                "use draft_sample_method='greedy'"
            )
        seed = params.seed if params.seed is not None else derive_seed(self.seed, self._num_arrived)
        result = RequestOutput(
            request_id,
            prompt,
            ids,
            outputs=[CompletionOutput(i) for i in range(params.n)],
            metrics=RequestMetrics(arrival_time=time.time(), queued_ts=time.monotonic()),
            prompt_logprobs=None if params.prompt_logprobs is None else [None],
        )
        room = self.max_model_len - len(ids)
        samples = []
        for output in result.outputs:
            if params.logprobs is not None:
                output.logprobs, output.cumulative_logprob = [], 0.0
            seed_i = sample_seed(seed, output.index)
            row = SamplingRow(params, seed_i, ids, output.token_ids, self.eos_token_ids, bad_words)
            request = Request(
                request_id=request_id if params.n == 1 else f"{request_id}.{output.index}",
                params=params,
                token_ids=list(ids),
                num_prompt_tokens=len(ids),
                max_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
                row=row,
                output=output,
                result=result,
                stop_strings=StopStrings(params.stop or (), params.include_stop_str_in_output),
                detokenizer=None
                if self.tokenizer is None or not params.detokenize
                else Detokenizer(self.tokenizer, ids, params.skip_special_tokens),
                arrival=(self._num_arrived, output.index),
                priority=priority,
            )
            samples.append(request)
        self._check_capacity(samples[0])
        return samples


def _to_token_id(given: Any) -> int:
    """Return an integer of any type, NumPy's included, as an int; -1 for anything else."""
    try:
        return -1 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return -1


def _part(request: Request, num_tokens: int) -> ScheduledRequest:
    computed, drafts = request.num_computed_tokens, list(request.drafts)
    kind: Kind = "prefill"  # includes all tokens that a preempted request computes again
    if request.status is Status.FINISHED:
        kind = "padding"
    elif (
        computed >= request.num_prompt_tokens
        and num_tokens == 1 + len(drafts)
        and computed == request.num_tokens - 1
    ):
        kind = "decode"
    # A prefix cache hit is recorded once, with the first tokens that are computed after it.
    cached = request.num_cached_tokens if computed == request.num_cached_tokens else 0
    return ScheduledRequest(
        request.request_id, kind, computed, num_tokens, cached, request.block_table.tolist(), drafts
    )
