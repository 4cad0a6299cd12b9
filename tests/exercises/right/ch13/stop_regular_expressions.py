# exercise: 13.2
"""Regular expressions of escaped stop strings."""

import re


class StopStrings:
    def __init__(self, stop):
        self.order = list(stop)
        starts = [f"(?:{re.escape(s[:n])})" for s in stop for n in range(len(s) - 1, 0, -1)]
        self.unsafe = re.compile(f"({'|'.join(starts)})\\Z") if starts else re.compile(r"\Z")
        self.rest = ""

    def push(self, text):
        text, self.rest = self.rest + text, ""
        ends = [(m.end(), i, s) for i, s in enumerate(self.order) if (m := re.search(re.escape(s), text))]
        if ends:
            end, _, stop = min(ends)
            return text[: end - len(stop)], stop
        at = self.unsafe.search(text).start() if self.unsafe.search(text) else len(text)
        text, self.rest = text[:at], text[at:]
        return text, None

    def finish(self):
        return self.rest
