# exercise: 13.1
"""Python's own decoder of line ends."""

import codecs
import io


class EventStream:
    def __init__(self):
        self.decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
        self.rest, self.fields = "", []

    def event(self, data):
        lines = ["data: " + line for line in data.split("\n")]
        return "\n".join([*lines, "", ""]).encode()

    def feed(self, chunk):
        *lines, self.rest = (self.rest + self.decoder.decode(chunk)).split("\n")
        return [event for line in lines for event in self.read(line)]

    def read(self, line):
        match line.split(":", 1):
            case ["data", value]:
                self.fields.append(value[value.startswith(" ") :])
            case [""] if self.fields:
                yield "\n".join(self.fields)
                self.fields = []
