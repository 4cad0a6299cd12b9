# exercise: 13.2
# says: Hold back only its end
"""Everything from a first character on is held back."""

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
        starts = [text.find(stop[0]) for stop in self.stop if stop[0] in text]
        safe = min(starts, default=len(text))
        self.held = text[safe:]
        return text[:safe], None

    def finish(self):
        held, self.held = self.held, ""
        return held
