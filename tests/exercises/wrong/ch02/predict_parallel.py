# exercise: 02.2
# says: 0.965 times as much
"""Both times at once: the root of the squares."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    seconds = math.hypot(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth)
    one = decode_cost(config, context)
    return batch / seconds, math.ceil(one.weight_bytes / one.kv_read_bytes)
