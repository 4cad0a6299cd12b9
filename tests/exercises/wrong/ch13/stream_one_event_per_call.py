# exercise: 13.1
# says: one event per call
"""At most one event is returned per call."""

import re


class EventStream:
    def __init__(self):
        self.buffer = b""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        self.buffer += chunk
        match = re.search(rb"\r\n\r\n|\n\n|\r\r", self.buffer)
        if not match:
            return []
        event, self.buffer = self.buffer[: match.start()], self.buffer[match.end() :]
        data = [
            line[5:].removeprefix(b" ").decode()
            for line in re.split(rb"\r\n|\r|\n", event)
            if line.startswith(b"data:")
        ]
        return ["\n".join(data)] if data else []
