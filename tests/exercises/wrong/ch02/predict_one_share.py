# exercise: 02.2
# says: that is the speed of one request
"""Forgets that a step serves the whole batch."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    compute, memory = cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth
    one = decode_cost(config, context, 1)
    even = math.ceil(one.weight_bytes / one.kv_read_bytes)
    return 1 / max(compute, memory), even
