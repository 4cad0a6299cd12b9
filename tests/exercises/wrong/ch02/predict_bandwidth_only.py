# exercise: 02.2
# says: you count only the time to read the bytes
"""Decode is memory-bound, always."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    memory = cost.bytes / machine.read_bandwidth
    one = decode_cost(config, context, 1)
    even = math.ceil(one.weight_bytes / one.kv_read_bytes)
    return batch / memory, even
