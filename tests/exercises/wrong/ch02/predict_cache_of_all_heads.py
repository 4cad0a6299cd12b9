# exercise: 02.2
# says: every query head had its own KV head
"""The bytes of a token's cache by hand, with all heads."""

import math

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    seconds = max(cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth)
    a_request = 2 * 2 * config.num_hidden_layers * config.hidden_size * context
    return batch / seconds, math.ceil(cost.weight_bytes / a_request)
