# exercise: 13.1
# says: end with CRLF are not
"""An event ends with two LF."""

class EventStream:
    def __init__(self):
        self.buffer = b""
        self.data = []

    def event(self, data):
        return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"

    def feed(self, chunk):
        self.buffer += chunk
        *whole, self.buffer = self.buffer.split(b"\n\n")
        events = []
        for event in whole:
            lines = [line for line in event.decode().split("\n") if line.startswith("data:")]
            if lines:
                events.append("\n".join(line[5:].removeprefix(" ") for line in lines))
        return events
