# exercise: 02.2
# says: copy_bandwidth counts reading and writing together
"""Takes the other bandwidth."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    seconds = max(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.copy_bandwidth)
    one = decode_cost(config, context)
    return batch / seconds, math.ceil(one.weight_bytes / one.kv_read_bytes)
