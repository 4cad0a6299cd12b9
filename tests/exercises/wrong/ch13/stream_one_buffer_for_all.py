# exercise: 13.1
# says: another stream
"""The buffers belong to the class."""

import re


class EventStream:
    buffer = b""
    data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        EventStream.buffer += chunk
        end = len(self.buffer) - self.buffer.endswith(b"\r")
        lines = re.split(rb"\r\n|\r|\n", self.buffer[:end])
        EventStream.buffer = lines.pop() + self.buffer[end:]
        events = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self.data.append(value.removeprefix(b" ").decode())
            elif not line and self.data:
                events.append("\n".join(self.data))
                self.data.clear()
        return events
