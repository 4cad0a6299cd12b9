# exercise: 13.1
# says: In a stream, only LF, CR and CRLF
"""The reader splits the text with str.splitlines."""

class EventStream:
    def __init__(self):
        self.buffer = b""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        self.buffer += chunk
        events = []
        while b"\n\n" in self.buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n"):
            text = self.buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            event, self.buffer = text.split(b"\n\n", 1)
            data = [
                line[5:].removeprefix(" ") for line in event.decode().splitlines() if line.startswith("data:")
            ]
            if data:
                events.append("\n".join(data))
        return events
