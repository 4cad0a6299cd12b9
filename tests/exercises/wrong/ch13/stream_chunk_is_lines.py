# exercise: 13.1
# says: a chunk is not a line
"""Lines are read chunk by chunk."""

import re


class EventStream:
    def __init__(self):
        self.buffer = b""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        events = []
        for line in re.split(rb"\r\n|\r|\n", chunk):
            name, _, value = line.partition(b":")
            if name == b"data":
                self.data.append(value.removeprefix(b" ").decode())
            elif not line and self.data:
                events.append("\n".join(self.data))
                self.data = []
        return events
