# exercise: 13.1
"""A generator that is sent the chunks."""

def reader():
    line, data, events, skip = b"", [], [], False
    while True:
        chunk = yield events
        events = []
        for i in range(len(chunk)):
            byte = chunk[i : i + 1]
            if byte == b"\n" and skip:
                skip = False
            elif byte in b"\r\n":
                skip = byte == b"\r"
                if not line and data:
                    events.append(b"\n".join(data).decode())
                    data = []
                elif line[:6] == b"data: ":
                    data.append(line[6:])
                elif line[:5] == b"data:":
                    data.append(line[5:])
                line = b""
            else:
                skip = False
                line += byte


class EventStream:
    def __init__(self):
        self.reader = reader()
        next(self.reader)

    def event(self, data):
        return b"".join(b"data: %b\n" % line for line in data.encode().split(b"\n")) + b"\n"

    def feed(self, chunk):
        return self.reader.send(chunk)
