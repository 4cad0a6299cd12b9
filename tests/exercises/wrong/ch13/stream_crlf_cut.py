# exercise: 13.1
# says: between CR and LF
"""CR at the end of a chunk is a line end, and so is the LF of the next chunk."""

import re


class EventStream:
    def __init__(self):
        self.buffer = b""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        self.buffer += chunk
        lines = re.split(rb"\r\n|\r|\n", self.buffer)
        self.buffer = lines.pop()
        events = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self.data.append(value.removeprefix(b" ").decode())
            elif not line and self.data:
                events.append("\n".join(self.data))
                self.data = []
        return events
