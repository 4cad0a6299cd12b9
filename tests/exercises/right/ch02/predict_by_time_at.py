# exercise: 02.2
"""With the package's roofline, and a search for the batch."""

from minillm.measure.costs import decode_cost
from minillm.measure.roofline import time_at


def predict_decode(config, machine, context, batch):
    step = time_at(decode_cost(config, context, batch), machine, "bfloat16")
    low, high = 0, 1  # the batch is above `low`; `high` is doubled until it is enough

    def enough(size):
        cost = decode_cost(config, context, size)
        return cost.kv_read_bytes >= cost.weight_bytes

    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return batch / step.seconds, high
