# exercise: 02.2
# says: 0.967 times as much
"""The cache of the context twice."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, 2 * context, batch)
    seconds = max(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth)
    one = decode_cost(config, context)
    return batch / seconds, math.ceil(one.weight_bytes / one.kv_read_bytes)
