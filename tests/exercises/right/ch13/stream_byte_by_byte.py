# exercise: 13.1
"""A state machine that sees one byte after another."""

class EventStream:
    def __init__(self):
        self.line = bytearray()
        self.data = None
        self.after_cr = False

    def event(self, data):
        out = bytearray()
        for line in data.split("\n"):
            out += b"data: " + line.encode("utf-8") + b"\n"
        out += b"\n"
        return bytes(out)

    def feed(self, chunk):
        found = []
        for byte in chunk:
            if byte == 10 and self.after_cr:
                self.after_cr = False
                continue
            self.after_cr = byte == 13
            if byte not in (10, 13):
                self.line.append(byte)
                continue
            line, self.line = bytes(self.line), bytearray()
            if line == b"":
                if self.data is not None:
                    found.append(self.data.decode("utf-8"))
                self.data = None
            elif line.startswith(b"data:"):
                value = line[5:]
                if value[:1] == b" ":
                    value = value[1:]
                self.data = value if self.data is None else self.data + b"\n" + value
        return found
