"""minillm: a small, complete engine for LLM inference, and the package that its course builds.

from minillm import LLM, SamplingParams

llm = LLM("tinytales")
print(llm.generate("Once upon a time", SamplingParams(max_tokens=60))[0].outputs[0].text)

Names that need torch are imported when they are first used, so that `minillm --help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minillm.errors import CheckpointError, MinillmError, QueueFullError, RequestError

# These two functions share their names with their modules. Importing the modules here, before anything else can,
# makes sure that the names stay bound to the functions.
from minillm.perplexity import perplexity
from minillm.swap import swap

if TYPE_CHECKING:
    from minillm.engine.request import CompletionOutput, Delta, RequestOutput
    from minillm.llm import LLM, bundled_models
    from minillm.sampling import SamplingParams

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "CheckpointError",
    "CompletionOutput",
    "Delta",
    "MinillmError",
    "QueueFullError",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "bundled_models",
    "perplexity",
    "swap",
]
_NEED_TORCH = {
    "LLM": "minillm.llm",
    "bundled_models": "minillm.llm",
    "CompletionOutput": "minillm.engine.request",
    "Delta": "minillm.engine.request",
    "RequestOutput": "minillm.engine.request",
    "SamplingParams": "minillm.sampling",
}


def __getattr__(name: str) -> Any:
    """Import a name that needs torch, and keep it. Raises AttributeError for a name that the package lacks."""
    if name not in _NEED_TORCH:
        raise AttributeError(f"module 'minillm' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_NEED_TORCH[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
