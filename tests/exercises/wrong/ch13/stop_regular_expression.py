# exercise: 13.2
# says: regular expression
"""A stop string is used as a regular expression."""

import re


class StopStrings:
    def __init__(self, stop):
        self.stop = list(stop)
        self.held = ""

    def push(self, text):
        text = self.held + text
        match = re.search("|".join(self.stop), text) if self.stop else None
        if match:
            self.held = ""
            return text[: match.start()], match.group()
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
