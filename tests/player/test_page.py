"""The player and a recording as one piece of HTML."""

import base64
import json
import re
import zlib

from minillm.measure.trace import (
    BlockCounts,
    Phases,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.player import page as code
from minillm.player.page import fragment, module, page, refreshed
from minillm.player.recording import Recording


def long_trace(num_requests: int, num_steps: int) -> Trace:
    """All requests decode in every step, and each takes a new block every 16 steps."""
    trace = Trace()
    for i in range(num_requests):
        trace.append(RequestAdded(i / 1e3, str(i), 40, [(7 * i + j * j) % 997 for j in range(40)]))
    tables: list[list[int]] = [[] for _ in range(num_requests)]
    for step in range(num_steps):
        parts = []
        for i, table in enumerate(tables):
            computed = 0 if step == 0 else 39 + step
            while len(table) * 16 < 40 + step:
                table.append(sum(map(len, tables)) * 31 % 4096)
            kind, count = ("decode", 1) if step else ("prefill", 40)
            parts.append(ScheduledRequest(str(i), kind, computed, count, 0, list(table)))
            trace.append(TokenRecord(step / 80, str(i), step, (i * i + step * 37) % 1999))
        record = StepRecord(step, step / 80, step / 80 + 0.0123, parts, 0, num_requests, Phases(0, 0, 0, 0))
        record.blocks = BlockCounts(4096, 4096 - sum(map(len, tables)))
        trace.append(record)
    trace += [RequestFinished(num_steps / 80, str(i), "length") for i in range(num_requests)]
    return trace


def recorded(trace: Trace) -> Recording:
    recording = Recording(trace, {"block_size": 16}, lambda token, before: f" word{token}")
    recording.extend()
    return recording


def unpacked(html: str) -> list[str]:
    """Return the texts that a browser unpacks: the module and the recording."""
    return [
        zlib.decompress(base64.b64decode(text)).decode() for text in re.findall(r'unpack\("([^"]+)"\)', html)
    ]


def test_sixty_requests_and_five_hundred_steps_take_less_than_300_kilobytes() -> None:
    whole = recorded(long_trace(60, 500)).whole()
    html = fragment(whole)
    assert len(html) < 300_000
    source, recording = unpacked(html)
    assert source == module() and json.loads(recording) == whole


def test_nothing_is_loaded_from_elsewhere() -> None:
    addresses = set(re.findall(r"https?://[^\"'\s)]+", page(recorded(long_trace(1, 2)).whole()) + module()))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"^\s*import\b|\bfetch\(|XMLHttpRequest|WebSocket", module(), re.MULTILINE)
    assert "innerHTML" not in module()


def test_a_prompt_cannot_leave_the_script() -> None:
    trace = Trace()
    trace.append(RequestAdded(0, "</script><b>", 1, [1]))
    recording = Recording(trace, {"block_size": 16}, lambda token, before: "</script><img onerror=alert(1)>")
    recording.extend()
    html = page(recording.whole(), {"panels": ["tape"]}, title="</title>")
    assert html.count("</script>") == 1 and html.count("</title>") == 1 and "onerror" not in html


def test_a_stored_fragment_gets_the_module_of_today(monkeypatch) -> None:
    trace, old = long_trace(2, 3), module().replace("seek(", "search(")
    recording = Recording(trace, {"block_size": 16})
    recording.extend()
    today = fragment(recording.whole())
    with monkeypatch.context() as patch:
        patch.setattr(code, "module", lambda file="player.js": old)
        stored = fragment(recording.whole())
    assert stored != today
    assert refreshed(stored) == today and refreshed(today) == today
    assert refreshed("<p>no module</p>") == "<p>no module</p>"
