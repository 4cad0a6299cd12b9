# exercise: 02.2
# says: the longer of the two times, not their sum
"""First the bytes, then the operations."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    compute, memory = cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth
    one = decode_cost(config, context, 1)
    even = math.ceil(one.weight_bytes / one.kv_read_bytes)
    return batch / (compute + memory), even
