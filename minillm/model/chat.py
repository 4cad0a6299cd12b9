"""Render a conversation with a model's chat template, within limits on time and memory.

A chat template is a program that comes with the model. The sandbox of Jinja keeps it from files and from Python, but
three nested loops or `'a' * 10**10` run for hours or take all memory, and only the operating system can stop any
program. So templates run in a process of their own (chat_process.py), which starts with the first conversation in
about 0.7 s and serves all later ones.
"""

import atexit
import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from minillm.errors import RequestError

CPU_SECONDS = 2
MEMORY_BYTES = 2**30
MAX_CHARACTERS = 2**24

_PROCESS = Path(__file__).with_name("chat_process.py")
_TEXT_PARTS = ("text", "input_text", "output_text")  # the types of vLLM and OpenAI that are plain text
_OWN_VARIABLES = {"messages", "conversations", "chat_template", "tools", "documents", "tokenize"}
_OWN_VARIABLES |= {"add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"}


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    continue_final_message: bool,
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any],
) -> str:
    """Return the text that `template` makes of `messages`; `variables` are passed to the template.

    Raises `RequestError` for messages of a wrong form, and with the template's own words if the template fails.
    """
    if add_generation_prompt and continue_final_message:
        raise RequestError(
            "add_generation_prompt and continue_final_message are both true: the first begins a new answer, the "
            "second goes on with the last message. Set one of them to False"
        )
    if taken := _OWN_VARIABLES & set(variables):
        raise RequestError(
            f"chat_template_kwargs holds {sorted(taken)[0]!r}, which is an argument of its own: pass it there"
        )
    if tools is not None and not all(isinstance(tool, Mapping) for tool in tools):
        raise RequestError("tools must be a list of JSON schemas, each of them a dict")
    if not messages:
        raise RequestError("the conversation is empty: give at least one message")
    texts_only, parts_only = _content_forms(template)
    return _render(
        template,
        [_checked(message, i, texts_only, parts_only) for i, message in enumerate(messages)],
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        tools=tools,
        **variables,
    )


def _checked(message: object, index: int, texts_only: bool, parts_only: bool) -> dict[str, Any]:
    """Return the message with its content in the form that the template reads."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RequestError(
            f"messages[{index}] is {str(message)[:80]!r}: a message is a dict with a 'role' (text) and a 'content'"
        )
    content = message.get("content")
    content = "" if content is None else content
    if not isinstance(content, str):
        content = _checked_parts(content, f"messages[{index}]['content']")
        # Tool results are texts in the templates of most models, whatever they read from a user.
        if texts_only or message["role"] == "tool":
            content = "\n".join(part["text"] for part in content)
    elif parts_only and message["role"] != "tool":
        content = [{"type": "text", "text": content}]
    return {**message, "content": content}


def _checked_parts(parts: object, name: str) -> list[dict[str, str]]:
    if not isinstance(parts, Sequence) or isinstance(parts, bytes):
        raise RequestError(
            f"{name} is of type {type(parts).__name__}: give text, or a list of {{'type': 'text', 'text': ...}}"
        )
    texts = []
    for i, part in enumerate(parts):
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        if not isinstance(part, Mapping):
            raise RequestError(
                f"{name}[{i}] is of type {type(part).__name__}: give {{'type': 'text', 'text': ...}}"
            )
        if part.get("type") not in _TEXT_PARTS:
            raise RequestError(
                f"{name}[{i}] has type {part.get('type')!r}: models here read text only. Give type 'text'"
            )
        if not isinstance(part.get("text"), str):
            raise RequestError(f"{name}[{i}]['text'] is {part.get('text')!r}: give text")
        texts.append({"type": "text", "text": part["text"]})
    return texts


@lru_cache(maxsize=32)
def _content_forms(template: str) -> tuple[bool, bool]:
    """Try out whether a template reads only texts, and whether it reads only lists of parts, as a message's content."""

    def reads(content: object) -> bool:
        try:
            text = _render(template, [{"role": "user", "content": content}])
        except _StoppedError:
            raise
        except RequestError:
            return False
        # In quotes it is the list itself that was written, and not its text.
        return bool(re.search(r"needle(?!['\"])", text))

    reads_parts = reads([{"type": "text", "text": "needle"}])
    return not reads_parts, reads_parts and not reads("needle")


class _StoppedError(RequestError):
    """A template that went over its limits. Trying it again would take as long."""


_process: subprocess.Popen[bytes] | None = None
_lock = threading.Lock()


def _render(template: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    """Return the rendered text; raises `RequestError` with the reason if there is none."""
    try:
        request = json.dumps(
            {**variables, "conversations": [messages], "chat_template": template}, default=_plain
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(
            f"messages, tools and chat_template_kwargs must be plain JSON values: {error}"
        ) from error
    answer = _ask(request.encode() + b"\n")
    if not answer.endswith(b"\n"):
        raise _StoppedError(
            f"the chat template was stopped: it ran for more than {CPU_SECONDS} s, or crashed. Use another"
        )
    content: dict[str, str] = json.loads(answer)
    if "error" in content:
        raise RequestError(
            f"the chat template failed: {content['error'].rstrip('.')}. Change the messages, or the template"
        )
    return content["text"]


def _plain(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _ask(request: bytes) -> bytes:
    """Return the answer of the template process, a line; without its end if the request ended the process."""
    global _process
    with _lock:
        if _process is None:
            _process = subprocess.Popen(
                [sys.executable, "-P", _PROCESS, *map(str, (CPU_SECONDS, MEMORY_BYTES, MAX_CHARACTERS))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # so that Ctrl-C reaches the caller alone
            )
        assert _process.stdin is not None and _process.stdout is not None
        answer = b""
        try:
            _process.stdin.write(request)
            _process.stdin.flush()
            answer = _process.stdout.readline()
        except BrokenPipeError:
            pass  # the process has ended, and the missing answer is reported below
        finally:
            if not answer.endswith(b"\n"):
                _stop()  # after an interrupt too: the next request would read the answer to this one
        return answer


@atexit.register
def _stop() -> None:
    global _process
    if _process is not None:
        with contextlib.suppress(BrokenPipeError), _process:
            _process.kill()
        _process = None
