# exercise: 13.3
# says: multiplied by the rate
"""The rate is multiplied with."""

import math
from collections import deque


class AdmissionQueue:
    def __init__(self, max_num_waiting):
        self.max_num_waiting = max_num_waiting
        self.waiting = deque()

    @staticmethod
    def retry_after(num_waiting, max_num_waiting, finished_per_second):
        if num_waiting < max_num_waiting:
            return None
        too_many = num_waiting - max_num_waiting + 1
        if finished_per_second == 0:
            return 1
        return min(60, max(1, math.ceil(too_many * finished_per_second)))

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
