# exercise: 13.3
"""A list, and rounding up by floor division."""

class AdmissionQueue:
    def __init__(self, max_num_waiting):
        self.limit, self.queue = max_num_waiting, []

    @staticmethod
    def retry_after(num_waiting, max_num_waiting, finished_per_second):
        above = num_waiting + 1 - max_num_waiting
        if above <= 0:
            return None
        if not finished_per_second:
            return 1
        return int(min(60, -(-above // finished_per_second)))

    def arrive(self, request, finished_per_second):
        if len(self.queue) < self.limit:
            self.queue += [request]
            return None
        return AdmissionQueue.retry_after(len(self.queue), self.limit, finished_per_second)

    def start(self):
        if self.queue:
            return self.queue.pop(0)

    def leave(self, request):
        self.queue = [one for one in self.queue if one != request]
