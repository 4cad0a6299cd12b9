# exercise: 02.2
"""By arithmetic intensity against the machine's balance."""

from minillm.measure.costs import decode_cost


def predict_decode(config, machine, context, batch):
    cost = decode_cost(config, context, batch)
    ridge = machine.rate("bfloat16") / machine.read_bandwidth
    bound_by_compute = cost.flops / cost.bytes > ridge
    seconds = cost.flops / machine.rate("bfloat16") if bound_by_compute else cost.bytes / machine.read_bandwidth
    size = 1
    while size * cost.kv_read_bytes < batch * cost.weight_bytes:
        size += 1
    return batch / seconds, size
