# exercise: 13.1
# says: middle of a character
"""Each chunk is decoded on its own."""

import re


class EventStream:
    def __init__(self):
        self.buffer = ""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        self.buffer += chunk.decode()
        end = len(self.buffer) - self.buffer.endswith("\r")
        lines = re.split(r"\r\n|\r|\n", self.buffer[:end])
        self.buffer = lines.pop() + self.buffer[end:]
        events = []
        for line in lines:
            name, _, value = line.partition(":")
            if name == "data":
                self.data.append(value.removeprefix(" "))
            elif not line and self.data:
                events.append("\n".join(self.data))
                self.data = []
        return events
