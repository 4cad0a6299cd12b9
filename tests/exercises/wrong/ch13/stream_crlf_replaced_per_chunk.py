# exercise: 13.1
# says: between CR and LF
"""Line ends are replaced chunk by chunk."""

class EventStream:
    def __init__(self):
        self.buffer = b""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        self.buffer += chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self.buffer = self.buffer.split(b"\n")
        events = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self.data.append(value.removeprefix(b" ").decode())
            elif not line and self.data:
                events.append("\n".join(self.data))
                self.data = []
        return events
