# exercise: 02.2
# says: Round the quotient up
"""Rounded to the nearest."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    seconds = max(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth)
    one = decode_cost(config, context)
    return batch / seconds, round(one.weight_bytes / one.kv_read_bytes)
