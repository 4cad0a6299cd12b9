# exercise: 13.1
# says: a chunk is not an event
"""Each chunk is read on its own."""

import re


class EventStream:
    def __init__(self):
        self.buffer = b""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        events = []
        for event in re.split(rb"\r\n\r\n|\n\n|\r\r", chunk):
            data = [
                line[5:].removeprefix(b" ").decode()
                for line in re.split(rb"\r\n|\r|\n", event)
                if line.startswith(b"data:")
            ]
            if data:
                events.append("\n".join(data))
        return events
