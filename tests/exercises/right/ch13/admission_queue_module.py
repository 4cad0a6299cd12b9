# exercise: 13.3
"""Free places are counted."""

import queue
from math import ceil


class AdmissionQueue:
    def __init__(self, max_num_waiting):
        self.queue = queue.Queue(max_num_waiting)
        self.left = set()
        self.count = 0
        self.max_num_waiting = max_num_waiting

    @classmethod
    def retry_after(cls, num_waiting, max_num_waiting, finished_per_second):
        if num_waiting < max_num_waiting:
            return None
        if finished_per_second == 0.0:
            return 1
        return min(ceil((num_waiting - max_num_waiting + 1) / finished_per_second), 60)

    def arrive(self, request, finished_per_second):
        try:
            self.queue.put_nowait(request)
        except queue.Full:
            return self.retry_after(self.queue.qsize(), self.max_num_waiting, finished_per_second)
        return None

    def start(self):
        try:
            return self.queue.get_nowait()
        except queue.Empty:
            return None

    def leave(self, request):
        if request in self.queue.queue:
            self.queue.queue.remove(request)
