"""`LLM`: the main interface. It finds a model, builds an engine (assembly.py) and turns prompts into text.

The arguments have vLLM's names and meaning; only `device`, `kv_cache` and `trace` are ours. A script for this package
runs with vLLM after one changed import.
"""

import asyncio
import os
import warnings
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from inspect import Signature, signature
from pathlib import Path
from traceback import format_exception_only
from typing import Any

import torch

from minillm.assembly import build_engine, cache_bytes_for, max_model_len_for
from minillm.config import EngineConfig, ModelConfig, replace_arguments
from minillm.engine.engine import Engine
from minillm.engine.loop import EngineLoop, Listener
from minillm.engine.request import Delta, RequestOutput
from minillm.engine.turns import Turns
from minillm.errors import CheckpointError, RequestError
from minillm.measure.trace import Trace
from minillm.model.stored import GGUF, open_model
from minillm.model.tokenizer import Tokenizer
from minillm.model.transformer import Transformer
from minillm.ops import ops_for
from minillm.quantization.products import Prepared, prepare
from minillm.quantization.schemes import ON_THE_FLY, OnTheFly, scheme_for
from minillm.sampling import SamplingParams
from minillm.speculative.eagle import EagleHead
from minillm.speculative.load import load_draft

Prompt = str | Sequence[int] | Mapping[str, Any]
BUNDLED = Path(__file__).parent / "models"
DRAFT_MODELS = {
    "tinytales": "tinytales-draft"
}  # that ship with the package, by the model that they draft for
PROGRESS_AFTER = 1.0  # seconds without a progress bar
WEIGHT_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def bundled_models() -> list[str]:
    """Return the names of the models that ship with the package."""
    return sorted(config.parent.name for config in BUNDLED.glob("*/config.json"))


def model_folder(model: str | Path) -> Path:
    """Return where a model is on disk: the folder of a bundled name, of a path, or of a hub id, or a GGUF file.

    A hub id is "owner/name". It is downloaded once, safetensors only.
    """
    if (BUNDLED / str(model) / "config.json").exists() and not Path(model).is_dir():
        return BUNDLED / str(model)
    if Path(model).exists():
        return Path(model)
    is_path = Path(model).is_absolute() or str(model).startswith(".") or str(model).lower().endswith(GGUF)
    if is_path or str(model).count("/") != 1:
        raise CheckpointError(
            f"no model {str(model)!r}: it is not a folder, not a GGUF file, not a bundled model "
            f"({', '.join(bundled_models())}) and not a hub id such as 'Qwen/Qwen3-0.6B'"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(str(model), allow_patterns=WEIGHT_FILES))
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the hub has no model {model!r}, or it needs a login (hf auth login)"
        ) from error
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"cannot fetch {model!r} from the hub ({error.__class__.__name__}), and it is not in the local cache. "
            f"Without a network use a bundled model ({', '.join(bundled_models())}) or a folder"
        ) from error


class LLM:
    """A model ready to generate. Arguments after `device` are those of `EngineConfig`.

    `model` is a bundled name, a folder, a GGUF file, or a hub id. `dtype="auto"` is the checkpoint's on CUDA
    and float32 on a CPU.

    `quantization` packs the weights while they are loaded: "int8" and "int4" keep activations in floats, "w8a8" and
    "fp8" (float8_e4m3fn) have them in 8 bits too. A checkpoint that is quantised already needs no argument. The
    embedding and the head stay floats. `kv_cache_dtype` "int8" or "fp8" keeps keys and values in 8 bits, with a scale
    for each token and KV head.

    The KV cache is "paged", in blocks of `block_size` tokens: as many as `max_num_seqs` texts of `max_model_len`
    tokens need, at most a quarter of the free memory (on CUDA: up to `gpu_memory_utilization` of the device).
    `kv_cache_memory_bytes` or `num_gpu_blocks_override` sets the size instead. `kv_cache="contiguous"` reserves a row
    of `max_model_len` tokens per request; "virtual" reserves the addresses of one and adds memory page by page, so
    pages take the part of blocks. "none" is the naive loop that computes everything again at each step.

    `speculative_config` is a dict that lets each step verify several drafts per request:

    - `method`: "ngram", "suffix", "draft_model" or "eagle3"; `model`: the draft model, or the head for "eagle3"
    - `num_speculative_tokens`: at most this many drafts per request and step (4)
    - `draft_sample_method`: "greedy" or, for a draft model, "probabilistic"
    - `prompt_lookup_min` (2) and `prompt_lookup_max` (4): the lengths of n-grams
    - `adaptive` (False): fewer drafts, or none, where they do not pay

    With "probabilistic" drafts, texts keep their distribution. In all other cases they keep their tokens too.

    `scheduling_policy` is "fcfs" (first come, first served), "priority" (by the numbers given with the prompts), or
    "static" (batch after batch, for comparison). On a GPU decode steps are recorded as CUDA graphs, unless
    `enforce_eager`. `with LLM(...)` or `close()` gives the memory back.
    """

    def __init__(
        self,
        model: str | Path = "tinytales",
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        **engine_arguments: Any,
    ) -> None:
        engine_config = replace_arguments(EngineConfig(), "LLM", engine_arguments)
        stored = open_model(model_folder(model))
        on = _device(device)
        ops = ops_for(on)
        scheme = Prepared(scheme_for(stored.quantization_config, engine_config.quantization), ops)
        transformer = stored.weights(on, _dtype(dtype, stored.config, on), ops, scheme)
        sampling: Mapping[str, Any] = stored.generation.sampling
        self._drafts: dict[tuple[str, str], Transformer | EagleHead] = {}
        self._start(str(model), transformer, stored.tokenizer(), engine_config, SamplingParams(**sampling))

    def _start(
        self,
        name: str,
        model: Transformer,
        tokenizer: Tokenizer | None,
        config: EngineConfig,
        defaults: SamplingParams,
    ) -> None:
        self.name, self.model, self.tokenizer, self._defaults = name, model, tokenizer, defaults
        self.config = replace(config, max_model_len=max_model_len_for(config, model.config))
        self._loop = EngineLoop(self._build(self.config))
        weakref.finalize(self, self._loop.stop)

    def _build(self, config: EngineConfig) -> Engine:
        """Return a new engine. The draft model is loaded if the last engine of these weights used another one."""
        speculation = config.speculation
        if speculation is None or speculation.model is None:
            return build_engine(self.model, self.tokenizer, config)
        wanted = (speculation.method, speculation.model)
        if wanted not in self._drafts:
            draft = load_draft(speculation, model_folder(speculation.model), self.model, self.tokenizer)
            self._drafts = {wanted: draft}
        return build_engine(self.model, self.tokenizer, config, self._drafts[wanted])

    def variant(self, **changes: Any) -> "LLM":
        """Return an LLM with the same weights and other engine arguments: `llm.variant(kv_cache="none")`.

        `quantization` quantises copies of the weights; everything else shares them.
        """
        other = LLM.__new__(LLM)
        config = replace_arguments(self.config, "variant", changes)
        model, wanted = self.model, config.quantization
        if wanted != self.config.quantization:
            if wanted is None:
                raise ValueError(
                    f"variant(quantization=None): the weights of this LLM are {self.config.quantization}, and the "
                    f"floats are not kept. Load them: LLM({self.name!r})"
                )
            quantise, ops = OnTheFly(ON_THE_FLY[wanted]).quantise, model.ops
            model = model.with_projections(lambda name, p: prepare(quantise(name, p), ops))
        other._drafts = self._drafts
        other._start(self.name, model, self.tokenizer, config, self._defaults)
        return other

    def start(self) -> None:
        """Run the engine in its own thread from now on, until `close`."""
        self._loop.start()

    def submit(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int | Sequence[int] | None = None,
        listener: Listener | None = None,
    ) -> list[RequestOutput]:
        """Queue prompts as `generate` does, and return their live outputs at once. The engine's thread fills them.

        The thread runs from `start` on. After each step, `listener` is called with the new part (engine/loop.py).
        """
        return self._add_all(_as_list(prompts), sampling_params, priority, listener)

    def encode(self, prompt: Prompt, add_special_tokens: bool = True) -> tuple[str | None, list[int]]:
        """Return a prompt's text, if it has one, and its token ids."""
        text, ids = self._encoded(prompt, add_special_tokens)
        return text, list(ids)

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], **template_arguments: Any
    ) -> tuple[str, list[int]]:
        """Return the text and the token ids of a conversation; the arguments are those of `apply_chat_template`."""
        prompt = self._chat_prompt(messages, **template_arguments)
        return prompt["prompt"], prompt["prompt_token_ids"]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included."""
        tokenizer, known = self._tokenizer("decode"), self.engine.vocab_size
        if unknown := [token_id for token_id in token_ids if not 0 <= token_id < known]:
            raise RequestError(
                f"there is no token {unknown[0]}: token ids are integers from 0 to {known - 1}"
            )
        return tokenizer.decode(token_ids, skip_special_tokens=False)

    def enqueue(
        self,
        prompt_token_ids: Sequence[int],
        sampling_params: SamplingParams,
        *,
        prompt: str | None = None,
        priority: int = 0,
        listener: Listener | None = None,
    ) -> Future[RequestOutput]:
        """Queue one prompt without waiting. The future has its live output, or the error that refused it."""
        self._check_priorities([priority])
        return self._add(prompt, prompt_token_ids, sampling_params, priority, listener)

    def abort(self, outputs: Sequence[RequestOutput]) -> Future[None]:
        """End these requests if they have not finished. The future is done when their blocks are free."""
        return self._loop.abort(outputs)

    def rebuild(self, **changes: Any) -> None:
        """Change engine arguments while requests run: `llm.rebuild(num_gpu_blocks_override=20)`.

        A new engine with the same weights, and with the parts that `minillm.swap` replaces, takes over the unfinished
        requests. It computes their tokens so far again, and their texts continue unchanged. Raises `RequestError` and
        changes nothing if one of them is too long for the new engine. If the engine's thread has ended with an error,
        the new engine starts empty, with a new thread.
        """
        config = replace_arguments(self.config, "rebuild", changes)
        config = replace(config, max_model_len=max_model_len_for(config, self.model.config))
        known = ("block_size", "max_num_batched_tokens", "max_num_seqs", "scheduling_policy", "kv_cache")
        engine = self._build(config)
        if self.alive:
            self._loop.replace(engine, {name: getattr(config, name) for name in known}).result()
        else:
            self._loop.restart(engine)
        self.config = config

    @property
    def engine(self) -> Engine:
        return self._loop.engine

    @property
    def max_cache_bytes(self) -> int:
        """Return the size of a KV cache that holds `max_num_seqs` texts of `max_model_len` tokens."""
        return cache_bytes_for(self.model, self.config, next(iter(self._drafts.values()), None))

    @property
    def alive(self) -> bool:
        """Return whether requests can be served. False after `close`, or if an error ended the engine's thread."""
        return self._loop.alive

    def blames_engine(self, error: BaseException) -> bool:
        """Return whether the error of a request came from a step as a whole, and not from the request."""
        return self._loop.blames_engine(error)

    def supervise(self, turns: Turns, on_death: Callable[[BaseException], None]) -> None:
        """Run steps alternately with the engines that share `turns`, and report an error that ends the thread.

        The ending thread calls `on_death` with the error. It may call `rebuild`.
        """
        self._loop.turns, self._loop.on_death = turns, on_death

    @property
    def trace(self) -> Trace:
        """Return the records of every step so far. Needs `LLM(..., trace=True)`."""
        if self.engine.trace is None:
            raise RuntimeError("nothing was recorded: make the LLM with trace=True")
        return self.engine.trace

    def watch(self, trace: Trace | None) -> None:
        """Write the records of all later steps into `trace`, after a snapshot of the state. None stops them.

        The caller reads the records and removes them from the list, so an engine can be watched for a long time.
        After `rebuild` the new engine has to be watched again.
        """
        self._loop.watch(trace).result()

    def get_tokenizer(self) -> Any:
        """Return the tokenizer as a `transformers` tokenizer."""
        return self._tokenizer("get_tokenizer").wrapped

    def get_default_sampling_params(self) -> SamplingParams:
        """Return the sampling parameters that `generate` uses if it gets none.

        They are the defaults, changed by the model's generation_config.json.
        """
        return self._defaults.clone()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        priority: int | Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Complete one prompt or many, and return the results in the order of the prompts.

        A prompt is text, a list of token ids, {"prompt": text}, or {"prompt_token_ids": [...]}. `sampling_params` is
        one for all prompts or a list with one per prompt. So is `priority`; the lowest is served first, and it needs
        `scheduling_policy="priority"`. A progress bar shows after one second, unless `use_tqdm` is False. Ctrl-C ends
        the run, and unfinished samples keep their text with finish_reason "abort".

        Raises `RequestError`, with all results as `outputs`, after all requests have ended if one of them failed.
        """
        return self._run(self._add_all(_as_list(prompts), sampling_params, priority), use_tqdm)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        priority: int | Sequence[int] | None = None,
        **template_arguments: Any,
    ) -> list[RequestOutput]:
        """Answer one conversation or several; each is a list of {"role": ..., "content": ...}.

        `priority` is as in `generate`, and `template_arguments` are as in `apply_chat_template`.
        """
        conversations: Any = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        prompts = [self._chat_prompt(one, **template_arguments) for one in conversations]
        return self._run(self._add_all(prompts, sampling_params, priority), use_tqdm)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return the token ids that the model reads for a conversation, up to the beginning of its answer."""
        prompt = self._chat_prompt(
            messages,
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
        )
        ids: list[int] = prompt["prompt_token_ids"]
        return ids

    def _chat_prompt(
        self, messages: Sequence[Mapping[str, Any]], **template_arguments: Any
    ) -> dict[str, Any]:
        """Return a conversation's text and token ids."""
        if not all(isinstance(message, Mapping) for message in messages):
            raise TypeError("a conversation is a list of {'role': ..., 'content': ...}")
        tokenizer = self._tokenizer("chat")
        text = tokenizer.chat_text(messages, **template_arguments)
        return {"prompt": text, "prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)}

    def stream(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> Iterator[Delta]:
        """Yield the new parts of one prompt's samples. Leaving the loop early aborts the request.

        If the request fails, raises its own error after the parts that came before it.
        """
        deltas: deque[Delta] = deque()
        output = self._add(*self._encoded(prompt), sampling_params, listener=deltas.extend).result()
        try:
            while deltas or not output.finished:
                self._loop.wait([output], lambda: bool(deltas) or output.finished)
                while deltas:
                    yield deltas.popleft()
        finally:
            self._loop.abort([output])
        if output.error is not None:
            raise output.error

    async def astream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> AsyncIterator[Delta]:
        """Yield the new parts of one prompt's samples, as `stream` does, for asyncio.

        Any number of streams may run at once and share each step. Steps run in the engine's own thread, and texts are
        tokenized in another thread, so the event loop never waits.
        """
        self._loop.start()
        events, news = asyncio.get_running_loop(), asyncio.Queue[list[Delta]]()

        def listener(deltas: list[Delta]) -> None:
            with suppress(RuntimeError):  # the event loop is closed
                events.call_soon_threadsafe(news.put_nowait, deltas)

        text, ids = await asyncio.to_thread(self._encoded, prompt)
        adding = self._add(text, ids, sampling_params, listener=listener)
        output: RequestOutput | None = None
        try:
            output = await asyncio.wrap_future(adding)
            ended = 0
            while ended < len(output.outputs):
                deltas = await news.get()
                if not deltas:
                    raise RuntimeError("this LLM is closed: make a new one")
                for delta in deltas:
                    ended += delta.finish_reason is not None
                    yield delta
        finally:
            if output is None:
                adding.add_done_callback(self._abort_added)
            elif not output.finished:
                await asyncio.wrap_future(self._loop.abort([output]))
        if output.error is not None:
            raise output.error

    def close(self) -> None:
        """Release the cache's memory. The LLM cannot be used afterwards."""
        self._loop.close()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add_all(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None,
        priority: int | Sequence[int] | None = None,
        listener: Listener | None = None,
    ) -> list[RequestOutput]:
        """Queue all prompts, or none: if one is refused, the others are removed again."""
        each = list(params) if isinstance(params, Sequence) else [params] * len(prompts)
        if len(each) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(each)} sampling_params: give one, or one each")
        ranks = [priority or 0] * len(prompts) if not isinstance(priority, Sequence) else list(priority)
        if len(ranks) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(ranks)} priorities: give one each")
        self._check_priorities(ranks)
        adding: list[Future[RequestOutput]] = []
        try:
            for prompt, one, rank in zip(prompts, each, ranks, strict=True):
                adding.append(self._add(*self._encoded(prompt), one, rank, listener))
                if adding[-1].done():  # no thread runs: what follows a refused prompt is not added
                    adding[-1].result()
            return [one.result() for one in adding]
        except BaseException:
            self._loop.abort([one.result() for one in adding if one.exception() is None]).result()
            raise

    def _check_priorities(self, priorities: Sequence[int]) -> None:
        if any(priorities) and self.config.scheduling_policy != "priority":
            raise ValueError(
                f"priority is given, and scheduling_policy is {self.config.scheduling_policy!r}, which knows none: "
                'make the LLM with scheduling_policy="priority"'
            )

    def _add(
        self,
        text: str | None,
        ids: Sequence[int],
        params: SamplingParams | None,
        priority: int = 0,
        listener: Listener | None = None,
    ) -> Future[RequestOutput]:
        params = self._defaults if params is None else params
        if not isinstance(params, SamplingParams):
            raise TypeError(f"sampling_params is a {type(params).__name__}: give a SamplingParams")
        return self._loop.add(ids, params, prompt=text, priority=priority, listener=listener)

    def _encoded(self, prompt: Prompt, add_special_tokens: bool = True) -> tuple[str | None, Sequence[int]]:
        """Return a prompt's text, if it has one, and its token ids."""
        parts: Mapping[str, Any]
        if isinstance(prompt, str):
            parts = {"prompt": prompt}
        elif isinstance(prompt, Mapping):
            parts = prompt
        else:
            parts = {"prompt_token_ids": prompt}
        if not parts or set(parts) - {"prompt", "prompt_token_ids"}:
            raise RequestError(
                "a prompt dict has the key 'prompt' with text, or 'prompt_token_ids' with token ids, and no others, "
                f"not {sorted(map(str, parts))}"
            )
        text, ids = parts.get("prompt"), parts.get("prompt_token_ids")
        if ids is None:
            if not isinstance(text, str):
                raise _no_prompt(text)
            if not text:
                raise RequestError("the prompt is empty: give text of at least one character, or token ids")
            ids = self._tokenizer("a text prompt").encode(text, add_special_tokens)
        if isinstance(ids, str | bytes) or not isinstance(ids, Sequence):
            raise _no_prompt(ids)
        return text, ids

    def _tokenizer(self, what: str) -> Tokenizer:
        if self.tokenizer is None:
            raise RequestError(
                f"{what} needs a tokenizer, and {self.name!r} has none: give token ids instead"
            )
        return self.tokenizer

    def _run(self, outputs: list[RequestOutput], use_tqdm: bool) -> list[RequestOutput]:
        try:
            with _progress(outputs, use_tqdm) as advance:
                self._loop.wait(outputs, advance)
        except KeyboardInterrupt:
            self._loop.abort(outputs).result()
            aborted = sum(any(o.finish_reason == "abort" for o in output.outputs) for output in outputs)
            warnings.warn(
                f"interrupted: {aborted} of {len(outputs)} outputs are unfinished (finish_reason 'abort')",
                stacklevel=3,
            )
        finally:
            self._loop.abort(outputs).result()
        failed = [output for output in outputs if output.error is not None]
        if failed:
            error = failed[0].error
            raise RequestError(
                f"{len(failed)} of {len(outputs)} requests failed. The first, {failed[0].request_id!r}: "
                f"{format_exception_only(error)[0].strip()}. The results of all are in this error's .outputs",
                outputs,
            ) from error
        return outputs

    def _abort_added(self, adding: Future[RequestOutput]) -> None:
        if not adding.cancelled() and adding.exception() is None:
            self._loop.abort([adding.result()])


def _signature() -> Signature:
    """Return a signature of LLM's own arguments and those of EngineConfig, for `help` and an editor's hints."""
    own = list(signature(LLM.__init__).parameters.values())[1:-1]
    return Signature([*own, *signature(EngineConfig).parameters.values()])


LLM.__signature__ = _signature()  # type: ignore[attr-defined]


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts as a list; a single prompt (text, ids or a dict) becomes a list of one."""
    if isinstance(prompts, str | bytes | Mapping):
        return [prompts]
    if not isinstance(prompts, Sequence):
        raise _no_prompt(prompts)
    if prompts and hasattr(prompts[0], "__index__"):  # integers of NumPy too
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]


def _no_prompt(given: object) -> TypeError:
    return TypeError(
        f"a prompt is text, a list of token ids or {{'prompt_token_ids': [...]}}, not {type(given).__name__}"
    )


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r}: use 'auto', 'cpu' or 'cuda'") from None
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r} is not supported: use 'auto', 'cpu' or 'cuda'")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}, but torch sees no CUDA device here: use device='cpu' or 'auto'")
    return found


def _dtype(dtype: str | torch.dtype, config: ModelConfig, device: torch.device) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        dtype = config.dtype if device.type == "cuda" else "float32"
    found = known.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"dtype={dtype!r} is not supported: use 'auto', {', '.join(map(repr, known))}")
    return found


@contextmanager
def _progress(outputs: list[RequestOutput], enabled: bool) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether all outputs are finished. It shows a progress bar after one second."""
    from tqdm.auto import tqdm

    off = not enabled or "TQDM_DISABLE" in os.environ  # tqdm itself asks for it only when it is imported
    with tqdm(
        total=len(outputs), desc="requests", dynamic_ncols=True, delay=PROGRESS_AFTER, disable=off
    ) as bar:

        def advance() -> bool:
            bar.update(sum(output.finished for output in outputs) - bar.n)
            return all(output.finished for output in outputs)

        yield advance
