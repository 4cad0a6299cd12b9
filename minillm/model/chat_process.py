"""Render chat templates, one for each line of the standard input: the process that chat.py starts.

A request is a line of JSON with the arguments of transformers' `render_jinja_template`, which has the sandbox and the
functions that templates expect. The answer is a line with its "text" or with the "error". The arguments of the process
are its limits. It imports nothing of this package, and no torch.
"""

import json
import resource
import sys
import time

from transformers.utils.chat_template_utils import render_jinja_template


def serve(cpu_seconds: int, memory_bytes: int, max_characters: int) -> None:
    """Answer every request; the operating system ends the process if one takes more than `cpu_seconds`."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        seconds = int(time.process_time()) + 1 + cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        sys.stdout.buffer.write(json.dumps(_answer(json.loads(line), max_characters)).encode() + b"\n")
        sys.stdout.buffer.flush()


def _answer(request: dict[str, object], max_characters: int) -> dict[str, str]:
    try:
        [text], _ = render_jinja_template(**request)
    except MemoryError:
        return {"error": "it needs too much memory"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:1000]}
    if len(text) > max_characters:
        return {"error": f"it writes {len(text)} characters, and at most {max_characters} are allowed"}
    return {"text": text}


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
