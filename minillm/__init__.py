"""minillm: a small, complete engine for LLM inference, and the package that its course builds.

from minillm import LLM, SamplingParams

llm = LLM("tinytales")
print(llm.generate("Once upon a time", SamplingParams(max_tokens=60))[0].outputs[0].text)
"""

from minillm.engine.request import CompletionOutput, Delta, RequestOutput
from minillm.errors import CheckpointError, MinillmError, QueueFullError, RequestError
from minillm.llm import LLM, bundled_models
from minillm.perplexity import perplexity
from minillm.sampling import SamplingParams
from minillm.swap import swap

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
