# exercise: 02.2
# says: you count only the time of the arithmetic
"""Tokens per second from the data sheet's TFLOP/s."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    compute = cost.flops / machine.rate("bfloat16")
    one = decode_cost(config, context, 1)
    even = math.ceil(one.weight_bytes / one.kv_read_bytes)
    return batch / compute, even
