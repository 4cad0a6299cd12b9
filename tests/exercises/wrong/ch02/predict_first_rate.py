# exercise: 02.2
# says: the weights are bfloat16. Use the rate for bfloat16
"""The first rate that the machine has."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    seconds = max(cost.flops / next(iter(machine.matmul_rate.values())), cost.bytes / machine.read_bandwidth)
    one = decode_cost(config, context)
    return batch / seconds, math.ceil(one.weight_bytes / one.kv_read_bytes)
