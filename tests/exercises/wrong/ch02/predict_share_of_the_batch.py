# exercise: 02.2
# says: 17 is the answer divided by `batch`
"""The batch is divided by the cache of the whole batch."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    seconds = max(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth)
    one = cost
    return batch / seconds, math.ceil(one.weight_bytes / one.kv_read_bytes)
