# exercise: 13.2
# says: already shown
"""The whole text is searched, but all of it is shown at once."""

class StopStrings:
    def __init__(self, stop):
        self.stop = stop
        self.text = ""

    def push(self, piece):
        before = len(self.text)
        self.text += piece
        found = [(self.text.find(stop) + len(stop), stop) for stop in self.stop if stop in self.text]
        if found:
            end, stop = min(found, key=lambda match: match[0])
            return self.text[before : end - len(stop)], stop
        return piece, None

    def finish(self):
        return ""
