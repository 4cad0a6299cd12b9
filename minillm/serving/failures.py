"""Errors as OpenAI's clients read them: a status, and `{"error": {"message", "type", "param", "code"}}`.

`failure_of` is the only place that decides which exception means which status. A message never has a traceback, and a
failure of the server itself does not say more than its kind.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from minillm.engine.loop import EngineDeadError
from minillm.errors import QueueFullError, RequestError
from minillm.serving.protocol import Body, FieldError
from minillm.serving.registry import OverloadedError, UnavailableError

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    503: "ServiceUnavailableError",
}


class JSONResponse(Response):
    """A JSON response in ASCII, so that a lone surrogate in a text cannot break it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class NoModelError(LookupError):
    """A request for a model that the server does not have."""


class TooLongError(Exception):
    """A prompt with more characters than the server tokenises."""


@contextmanager
def of_the_user(body: Body) -> Iterator[None]:
    """Make a `ValueError` or `TypeError` of the engine about one of the body's fields into a `FieldError`."""
    try:
        yield
    except (FieldError, QueueFullError):
        raise
    except (ValueError, TypeError) as error:
        name = re.match(r"\w*", str(error))
        known = name is not None and name[0] in type(body).model_fields
        raise FieldError(name[0] if name is not None and known else None, str(error)) from error


@dataclass(frozen=True)
class Failure:
    """The answer to a request that gets no reply."""

    status: int
    message: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        error = {
            "message": self.message,
            "type": _TYPES.get(self.status, "InternalServerError" if self.status >= 500 else "APIError"),
            "param": self.param,
            "code": self.status,
        }
        return {"error": error}

    def response(self) -> JSONResponse:
        return JSONResponse(self.content(), self.status, self.headers)


def failure_of(error: BaseException) -> Failure:
    """Return what a client learns about `error`."""
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        words = error.detail if error.detail else HTTPStatus(error.status_code).phrase
        return Failure(error.status_code, str(words), None, dict(error.headers or {}))
    if isinstance(error, NoModelError):
        return Failure(404, str(error.args[0]), "model")
    if isinstance(error, TooLongError):
        return Failure(413, str(error), "prompt")
    if isinstance(error, OverloadedError):
        return Failure(429, str(error), None, {"Retry-After": str(error.retry_after)})
    if isinstance(error, QueueFullError):
        return Failure(429, str(error), None, {"Retry-After": "1"})
    if isinstance(error, UnavailableError):
        return Failure(503, str(error), None, {"Retry-After": str(error.retry_after)})
    if isinstance(error, EngineDeadError):
        return Failure(503, "the engine of this model is not running", None, {"Retry-After": "1"})
    if isinstance(error, FieldError):
        return Failure(400, str(error), error.param)
    if isinstance(error, RequestError):
        return Failure(400, str(error))
    return Failure(500, f"the server failed ({type(error).__name__}): its log says where")


def _invalid(error: RequestValidationError) -> Failure:
    """Return the first thing that is wrong with a body, without the value, which may be long."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "body" and not str(part).startswith("list[")]
    if first["type"] == "json_invalid":
        return Failure(400, f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    if not path:
        return Failure(400, "the body must be a JSON object, sent with Content-Type: application/json")
    return Failure(400, f"{'.'.join(path)[:200]}: {first['msg']}", path[0][:200])
