# exercise: 02.2
# says: A batch has a whole number of requests
"""Leaves the fraction."""


from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    compute, memory = cost.flops / machine.rate("bfloat16"), cost.bytes / machine.read_bandwidth
    one = decode_cost(config, context, 1)
    return batch / max(compute, memory), one.weight_bytes / one.kv_read_bytes
