# exercise: 13.2
# says: ValueError
"""max of nothing."""

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
        ends = [n for stop in self.stop for n in range(len(stop)) if text.endswith(stop[:n])]
        safe = len(text) - max(ends)
        self.held = text[safe:]
        return text[:safe], None

    def finish(self):
        held, self.held = self.held, ""
        return held
