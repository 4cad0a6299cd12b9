# exercise: 13.2
# says: not always len(stop) - 1
"""As many characters as the longest stop string may have are always held back."""

class StopStrings:
    def __init__(self, stop):
        self.stop = list(stop)
        self.held = ""

    def push(self, text):
        old, text = len(self.held), self.held + text
        found = []
        for stop in self.stop:
            start = text.find(stop, max(0, old + 1 - len(stop)))
            if start >= 0:
                found.append((start + len(stop), stop))
        if found:
            end, stop = min(found, key=lambda match: match[0])
            self.held = ""
            return text[: end - len(stop)], stop
        held = max((len(stop) for stop in self.stop), default=1) - 1
        safe = max(0, len(text) - held)
        self.held = text[safe:]
        return text[:safe], None

    def finish(self):
        held, self.held = self.held, ""
        return held
