# exercise: 13.1
# says: an event of its own
"""Each data line is an event."""

import re


class EventStream:
    def __init__(self):
        self.buffer = b""

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
                events.append(value.removeprefix(b" ").decode())
        return events
