# exercise: 02.2
# says: is a number of tokens
"""The weights divided by the bytes of one token."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    compute, memory = cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth
    return batch / max(compute, memory), math.ceil(cost.weight_bytes / config.kv_bytes_per_token(2))
