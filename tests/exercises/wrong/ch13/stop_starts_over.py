# exercise: 13.2
# says: begin again inside
"""A failed match starts over behind all of its characters."""

class StopStrings:
    def __init__(self, stop):
        self.stop = stop
        self.seen = [0] * len(stop)
        self.held = ""

    def push(self, text):
        shown = ""
        for character in text:
            self.held += character
            for i, stop in enumerate(self.stop):
                if stop[self.seen[i]] != character:
                    self.seen[i] = 0
                if stop[self.seen[i]] == character:
                    self.seen[i] += 1
                if self.seen[i] == len(stop):
                    return shown + self.held[: len(self.held) - len(stop)], stop
            safe = len(self.held) - max(self.seen, default=0)
            shown, self.held = shown + self.held[:safe], self.held[safe:]
        return shown, None

    def finish(self):
        held, self.held = self.held, ""
        return held
