# exercise: 13.2
"""One character after another."""

class StopStrings:
    def __init__(self, stop):
        self.stop, self.held = tuple(stop), ""

    def push(self, text):
        shown = ""
        for character in text:
            self.held += character
            for stop in self.stop:
                if self.held.endswith(stop):
                    return shown + self.held.removesuffix(stop), stop
            while self.held and not any(stop.startswith(self.held) for stop in self.stop):
                shown, self.held = shown + self.held[0], self.held[1:]
        return shown, None

    def finish(self):
        held, self.held = self.held, ""
        return held
