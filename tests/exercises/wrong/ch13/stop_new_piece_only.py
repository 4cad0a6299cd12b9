# exercise: 13.2
# says: only in the new piece
"""Only the new piece is searched, and nothing is held back."""

class StopStrings:
    def __init__(self, stop):
        self.stop = stop

    def push(self, text):
        found = [(text.find(stop) + len(stop), stop) for stop in self.stop if stop in text]
        if found:
            end, stop = min(found, key=lambda match: match[0])
            return text[: end - len(stop)], stop
        return text, None

    def finish(self):
        return ""
