# exercise: 13.1
"""An incremental decoder, and line ends in one form."""

import codecs


class EventStream:
    def __init__(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""

    def event(self, data):
        return ("data: " + data.replace("\n", "\ndata: ") + "\n\n").encode()

    def feed(self, chunk):
        self.text += self.decoder.decode(chunk)
        held = "\r" if self.text.endswith("\r") else ""
        text = self.text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
        *whole, rest = text.lstrip("\n").split("\n\n")
        self.text = rest + held
        events = []
        for event in whole:
            data = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
            if data:
                events.append("\n".join(data))
        return events
