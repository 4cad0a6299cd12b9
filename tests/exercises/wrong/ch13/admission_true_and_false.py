# exercise: 13.3
# says: a bool
"""The result says only whether."""

import math
from collections import deque


class AdmissionQueue:
    def __init__(self, max_num_waiting):
        self.max_num_waiting = max_num_waiting
        self.waiting = deque()

    @staticmethod
    def retry_after(num_waiting, max_num_waiting, finished_per_second):
        if num_waiting < max_num_waiting:
            return False
        too_many = num_waiting - max_num_waiting + 1
        if finished_per_second == 0:
            return True
        return True

    def arrive(self, request, finished_per_second):
        seconds = self.retry_after(len(self.waiting), self.max_num_waiting, finished_per_second)
        if seconds is None:
            self.waiting.append(request)
        return seconds

    def start(self):
        return self.waiting.popleft() if self.waiting else None

    def leave(self, request):
        if request in self.waiting:
            self.waiting.remove(request)
