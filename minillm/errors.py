"""The errors a user can meet. Each message says what was wrong, with the numbers, and what to do about it.

Bad arguments raise `ValueError` or `TypeError`, as everywhere in Python; the classes here are for what an
argument check cannot see: a checkpoint on disk, a request against a running engine.
"""

from collections.abc import Sequence
from typing import Any


class MinillmError(Exception):
    """Base of every error that is the package's own."""


class CheckpointError(MinillmError, ValueError):
    """A model folder that cannot be read, is damaged, or asks for something not implemented."""


class RequestError(MinillmError, ValueError):
    """A request that can never be served (empty, too long for the context, text without a tokenizer), or that failed.

    `outputs` are all results of a `generate` or `chat` in which requests failed, theirs with finish_reason "error".
    """

    def __init__(self, message: str, outputs: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.outputs = list(outputs)


class QueueFullError(RequestError):
    """A request that came while `max_num_waiting` others were waiting. It can be sent again later."""
