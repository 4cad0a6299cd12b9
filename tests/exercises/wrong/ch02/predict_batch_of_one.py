# exercise: 02.2
# says: 1.26 times as much
"""A batch is served in the time of one request."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, 1)
    seconds = max(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth)
    one = decode_cost(config, context)
    return batch / seconds, math.ceil(one.weight_bytes / one.kv_read_bytes)
