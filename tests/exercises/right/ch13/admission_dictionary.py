# exercise: 13.3
"""A dict keeps the order."""

import math


class AdmissionQueue:
    def __init__(self, max_num_waiting):
        self.places = max_num_waiting
        self.waiting = {}

    def retry_after(self, num_waiting, max_num_waiting, finished_per_second):
        if max_num_waiting - num_waiting > 0:
            return None
        try:
            seconds = (1 + num_waiting - max_num_waiting) / finished_per_second
        except ZeroDivisionError:
            return 1
        return 60 if seconds > 60 else max(math.ceil(seconds), 1)

    def arrive(self, request, finished_per_second):
        seconds = self.retry_after(len(self.waiting), self.places, finished_per_second)
        if seconds:
            return seconds
        self.waiting[request] = True

    def start(self):
        first = next(iter(self.waiting), None)
        self.waiting.pop(first, None)
        return first

    def leave(self, request):
        self.waiting.pop(request, None)
