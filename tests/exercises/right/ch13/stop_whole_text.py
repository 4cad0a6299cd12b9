# exercise: 13.2
"""The whole text is kept, with the number of characters that were shown."""

class StopStrings:
    def __init__(self, stop):
        self.stop, self.text, self.shown = stop, "", 0

    def push(self, text):
        start = len(self.text)
        self.text += text
        for end in range(start + 1, len(self.text) + 1):
            for stop in self.stop:
                if self.text.endswith(stop, 0, end):
                    return self.show(end - len(stop)), stop
        longest = max([0, *(len(stop) - 1 for stop in self.stop)])
        safe = max(self.shown, len(self.text) - longest)
        while safe < len(self.text) and not any(stop.startswith(self.text[safe:]) for stop in self.stop):
            safe += 1
        return self.show(safe), None

    def show(self, end):
        shown, self.shown = self.text[self.shown : end], end
        return shown

    def finish(self):
        return self.show(len(self.text))
