"""The settings that the operator of a server chooses, apart from its models."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of the HTTP side.

    `api_key` must come with every request except to `OPEN_PATHS` (guard.py). `cors` are origins whose pages may use the
    server. Bodies have at most `max_body_bytes`, which must arrive within `body_seconds`. A prompt has at most
    `max_prompt_characters`, and one request asks for at most `max_num_samples` samples over all of its prompts.
    `log_requests` logs the path, the status and the body of each request.

    `live` is True for the live page (live.py) under any host name, and False for no page. None means a page under the
    names of this machine, and no page if `Server` or `serve` listens for other machines.
    """

    api_key: str | None = None
    cors: tuple[str, ...] = ()
    max_body_bytes: int = 4 * 2**20
    body_seconds: float = 30.0
    max_prompt_characters: int = 2**20
    max_num_samples: int = 1024
    log_requests: bool = False
    live: bool | None = None
