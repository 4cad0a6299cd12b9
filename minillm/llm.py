"""`LLM`: the front door. Finds a model, and turns prompts into text over an engine (assembly.py).

The arguments are vLLM's, under vLLM's names (`device`, `kv_cache` and `trace` are ours), so a script written here
runs there with one import changed.
"""

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from minillm.assembly import context_of, engine_of
from minillm.config import EngineConfig, ModelConfig
from minillm.engine.engine import Engine
from minillm.engine.request import FinishReason, RequestOutput
from minillm.errors import CheckpointError, RequestError
from minillm.measure.trace import Trace
from minillm.model.checkpoint import load_model
from minillm.model.families import read_config
from minillm.model.tokenizer import Tokenizer, load_tokenizer
from minillm.model.transformer import Transformer
from minillm.ops import ops_for
from minillm.sampling import SamplingParams

Prompt = str | Sequence[int] | Mapping[str, Any]
BUNDLED = Path(__file__).parent / "models"
WEIGHT_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, slots=True)
class StreamOutput:
    """What came since the last one: `text` and `token_ids`; `finish_reason` is set on the last of a sample."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None


def bundled_models() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(config.parent.name for config in BUNDLED.glob("*/config.json"))


def model_folder(model: str | Path) -> Path:
    """The folder of a bundled name, of a path, or of a hub id ("owner/name", downloaded once, safetensors only)."""
    if (BUNDLED / str(model) / "config.json").exists() and not Path(model).is_dir():
        return BUNDLED / str(model)
    if Path(model).is_dir():
        return Path(model)
    if Path(model).is_absolute() or str(model).count("/") != 1 or str(model).startswith("."):
        raise CheckpointError(
            f"no model {str(model)!r}: it is not a folder, not a bundled model ({', '.join(bundled_models())}) and not "
            "a hub id such as 'Qwen/Qwen3-0.6B'"
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
    """A model ready to generate.

    `model` is a bundled name, a folder, or a hub id. `dtype="auto"` is the checkpoint's on CUDA and float32 on a CPU.

    The KV cache is "paged", in blocks of `block_size` tokens: as many as `max_num_seqs` texts of `max_model_len` tokens
    need, a quarter of the free memory at most (on CUDA: up to `gpu_memory_utilization` of the device), or
    `num_gpu_blocks_override`. `kv_cache="contiguous"` reserves a row of `max_model_len` tokens a request, "virtual" the
    addresses of one, with memory page by page: pages are then what blocks are elsewhere. "none" is the naive loop that
    computes everything again at each step.

    `scheduling_policy` is "fcfs", first come, first served; "priority", by the numbers given with the prompts; or
    "static", batch after batch, to compare.
    On a GPU decode steps are recorded as CUDA graphs, unless `enforce_eager`. `with LLM(...)` or `close()` gives the
    memory back.
    """

    def __init__(
        self,
        model: str | Path = "tinytales",
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int = 2048,
        enable_chunked_prefill: bool = True,
        long_prefill_token_threshold: int = 0,
        scheduling_policy: Literal["fcfs", "priority", "static"] = "fcfs",
        gpu_memory_utilization: float = 0.92,
        num_gpu_blocks_override: int | None = None,
        kv_cache: Literal["paged", "contiguous", "virtual", "none"] = "paged",
        block_size: int = 16,
        enable_prefix_caching: bool = True,
        enforce_eager: bool = False,
        seed: int = 0,
        trace: bool = False,
    ) -> None:
        engine_config = EngineConfig(
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            enable_chunked_prefill=enable_chunked_prefill,
            long_prefill_token_threshold=long_prefill_token_threshold,
            scheduling_policy=scheduling_policy,
            gpu_memory_utilization=gpu_memory_utilization,
            num_gpu_blocks_override=num_gpu_blocks_override,
            kv_cache=kv_cache,
            block_size=block_size,
            enable_prefix_caching=enable_prefix_caching,
            enforce_eager=enforce_eager,
            seed=seed,
            trace=trace,
        )
        folder = model_folder(model)
        config = read_config(folder)
        on = _device(device)
        transformer = load_model(folder, config, on, _dtype(dtype, config, on), ops_for(on))
        self._start(str(model), transformer, load_tokenizer(folder), engine_config)

    def _start(
        self, name: str, model: Transformer, tokenizer: Tokenizer | None, config: EngineConfig
    ) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.config = replace(config, max_model_len=context_of(config, model.config))
        # Reentrant: the garbage collector may drop a stream, which aborts its request, in the midst of a step.
        self._lock = threading.RLock()
        self._engine: Engine | None = engine_of(model, tokenizer, self.config)

    def variant(self, **changes: Any) -> "LLM":
        """Another engine over the same weights: `llm.variant(kv_cache="none")`. Takes LLM's engine arguments."""
        unknown = set(changes) - set(EngineConfig.__dataclass_fields__)
        if unknown:
            known = ", ".join(EngineConfig.__dataclass_fields__)
            raise TypeError(f"variant() has no argument {sorted(unknown)[0]!r}: it takes {known}")
        other = LLM.__new__(LLM)
        other._start(self.name, self.model, self.tokenizer, replace(self.config, **changes))
        return other

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("this LLM is closed: make a new one")
        return self._engine

    @property
    def trace(self) -> Trace:
        """The records of every step so far; needs `LLM(..., trace=True)`."""
        if self.engine.trace is None:
            raise RuntimeError("nothing was recorded: make the LLM with trace=True")
        return self.engine.trace

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: Sequence[int] | None = None,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Complete one prompt or many, all at once, in the order given.

        A prompt is text, a list of token ids, or {"prompt_token_ids": [...]}. `sampling_params` is one for all or one
        each; `priority` one number each, the lowest served first (`scheduling_policy="priority"` only). Ctrl-C ends the
        run with what there is: unfinished samples have finish_reason "abort".
        """
        return self._run(self._add_all(_as_list(prompts), sampling_params, priority), use_tqdm)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]] | Sequence[Sequence[Mapping[str, str]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = False,
    ) -> list[RequestOutput]:
        """Answer one conversation or several; each is a list of {"role": ..., "content": ...}."""
        conversations = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        prompts: list[Prompt] = [
            self.apply_chat_template(conversation)  # type: ignore[arg-type]
            for conversation in conversations
        ]
        return self._run(self._add_all(prompts, sampling_params), use_tqdm)

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The token ids that the model reads for a conversation, up to where its answer begins."""
        if not all(isinstance(message, Mapping) for message in messages):
            raise TypeError("a conversation is a list of {'role': ..., 'content': ...}")
        return self._tokenizer("chat").apply_chat_template(messages)

    def stream(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> Iterator[StreamOutput]:
        """Yield one prompt's samples as they grow. Leaving the loop early aborts the request."""
        growth = _Growth(self._add(prompt, sampling_params))
        try:
            while not growth.complete:
                yield from self._advance(growth)
        finally:
            self._abort([growth.output])

    async def astream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> AsyncIterator[StreamOutput]:
        """`stream` for asyncio: several may run at once and share each step; steps run in a worker thread."""
        growth = _Growth(self._add(prompt, sampling_params))
        try:
            while not growth.complete:
                for piece in await asyncio.to_thread(self._advance, growth):
                    yield piece
        finally:
            self._abort([growth.output])

    def close(self) -> None:
        """Give the cache's memory back. The LLM cannot be used afterwards."""
        if self._engine is not None:
            self._engine = None
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
        priority: Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Queue all prompts, or none: one that is refused takes the others back out."""
        each = list(params) if isinstance(params, Sequence) else [params] * len(prompts)
        if len(each) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(each)} sampling_params: give one, or one each")
        if priority is not None and self.config.scheduling_policy != "priority":
            raise ValueError(
                f"priority is given, and scheduling_policy is {self.config.scheduling_policy!r}, which knows none: "
                'make the LLM with scheduling_policy="priority"'
            )
        ranks = [0] * len(prompts) if priority is None else list(priority)
        if len(ranks) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(ranks)} priorities: give one each")
        outputs: list[RequestOutput] = []
        try:
            for prompt, one, rank in zip(prompts, each, ranks, strict=True):
                outputs.append(self._add(prompt, one, rank))
        except BaseException:
            self._abort(outputs)
            raise
        return outputs

    def _add(self, prompt: Prompt, params: SamplingParams | None, priority: int = 0) -> RequestOutput:
        params = SamplingParams() if params is None else params
        if not isinstance(params, SamplingParams):
            raise TypeError(f"sampling_params is a {type(params).__name__}: give a SamplingParams")
        text = prompt if isinstance(prompt, str) else None
        if text is not None:
            if not text:
                raise RequestError("the prompt is empty: give text of at least one character, or token ids")
            ids: Any = self._tokenizer("a text prompt").encode(text)
        elif isinstance(prompt, Mapping):
            if set(prompt) != {"prompt_token_ids"}:
                raise RequestError(
                    f"a prompt dict has the one key 'prompt_token_ids', not {sorted(map(str, prompt))}"
                )
            ids = prompt["prompt_token_ids"]
        else:
            ids = prompt
        if isinstance(ids, str | bytes) or not isinstance(ids, Sequence):
            raise _no_prompt(ids)
        with self._lock:
            return self.engine.add_request(ids, params, prompt=text, priority=priority)

    def _tokenizer(self, what: str) -> Tokenizer:
        if self.tokenizer is None:
            raise RequestError(
                f"{what} needs a tokenizer, and {self.name!r} has none: give token ids instead"
            )
        return self.tokenizer

    def _run(self, outputs: list[RequestOutput], use_tqdm: bool) -> list[RequestOutput]:
        try:
            with _progress(outputs, use_tqdm) as advance:
                while not all(output.finished for output in outputs):
                    self._step()
                    advance()
        except KeyboardInterrupt:
            self._abort(outputs)
            aborted = sum(any(o.finish_reason == "abort" for o in output.outputs) for output in outputs)
            warnings.warn(
                f"interrupted: {aborted} of {len(outputs)} outputs are unfinished (finish_reason 'abort')",
                stacklevel=3,
            )
        finally:
            self._abort(outputs)
        return outputs

    def _step(self) -> None:
        with self._lock:
            self.engine.step()

    def _advance(self, growth: "_Growth") -> list[StreamOutput]:
        """What has come since the last call; only if nothing has, one step."""
        with self._lock:
            if not growth.has_grown:
                self.engine.step()
            return growth.take()

    def _abort(self, outputs: list[RequestOutput]) -> None:
        with self._lock:
            for output in outputs:
                if not output.finished and self._engine is not None:
                    self._engine.abort(output.request_id)


class _Growth:
    """Remembers how much of a live output has been given out."""

    def __init__(self, output: RequestOutput) -> None:
        self.output = output
        self.given = [(0, 0, False)] * len(output.outputs)  # characters, tokens, whether its end was told

    def _state(self) -> list[tuple[int, int, bool]]:
        return [(len(o.text), len(o.token_ids), o.finish_reason is not None) for o in self.output.outputs]

    @property
    def has_grown(self) -> bool:
        return self._state() != self.given

    @property
    def complete(self) -> bool:
        """Whether all has been given out, the end of every sample included."""
        return all(ended for _, _, ended in self.given)

    def take(self) -> list[StreamOutput]:
        before, self.given = self.given, self._state()
        return [
            StreamOutput(o.index, o.text[chars:], o.token_ids[tokens:], o.finish_reason)
            for o, (chars, tokens, ended), now in zip(self.output.outputs, before, self.given, strict=True)
            if now != (chars, tokens, ended)
        ]


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt (text, ids or a dict) as a list of one."""
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


class _progress:
    """A progress bar over finished requests, or nothing."""

    def __init__(self, outputs: list[RequestOutput], enabled: bool) -> None:
        self.outputs, self.bar = outputs, None
        if enabled:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=len(outputs), desc="requests", dynamic_ncols=True)

    def __enter__(self) -> Callable[[], None]:
        return self.advance

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update(sum(output.finished for output in self.outputs) - self.bar.n)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
