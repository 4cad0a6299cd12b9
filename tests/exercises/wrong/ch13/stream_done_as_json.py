# exercise: 13.1
# says: parsed as JSON
"""The data of each event is parsed."""

import json
import re


class EventStream:
    def __init__(self):
        self.buffer = b""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        self.buffer += chunk
        end = len(self.buffer) - self.buffer.endswith(b"\r")
        lines = re.split(rb"\r\n|\r|\n", self.buffer[:end])
        self.buffer = lines.pop() + self.buffer[end:]
        events = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self.data.append(value.removeprefix(b" ").decode())
            elif not line and self.data:
                events.append(json.loads("\n".join(self.data)))
                self.data = []
        return events
