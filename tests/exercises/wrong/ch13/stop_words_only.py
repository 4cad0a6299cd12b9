# exercise: 13.2
# says: only at the end of a piece
"""A stop string counts only at the end of a piece."""

class StopStrings:
    def __init__(self, stop):
        self.stop = list(stop)
        self.held = ""

    def push(self, text):
        old, text = len(self.held), self.held + text
        found = []
        for stop in self.stop:
            if text.endswith(stop):
                found.append((len(text), stop))
        if found:
            end, stop = min(found, key=lambda match: match[0])
            self.held = ""
            return text[: end - len(stop)], stop
        held = 0
        for stop in self.stop:
            for length in range(1, len(stop)):
                if text.endswith(stop[:length]):
                    held = max(held, length)
        self.held = text[len(text) - held :]
        return text[: len(text) - held], None

    def finish(self):
        held, self.held = self.held, ""
        return held
