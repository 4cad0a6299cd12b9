"""Chapter 02, the memory wall: its exercises in words."""

from minillm.course.exercise import Exercise

COUNT_STEP = Exercise(
    "02.1",
    "Count a step",
    function="count_step",
    points=5,
    minutes=25,
    difficulty=3,
    uses=("minillm.config",),
    hints=(
        "Three kinds of work: matrices that every new token is multiplied by, the head, and attention. Two kinds of "
        "bytes: weights, which the step reads once whatever the batch, and the cache, which belongs to each request.",
        "A matrix of N numbers costs 2·N FLOP a token and 2·N bytes a step. Query i of a request sees context + i + 1 "
        "keys; q·k and weight·v are 2·head_dim FLOP each, for every query head. The cache holds one key and one value "
        "for each KV head and layer; a step reads what is in sight and writes what is new.",
        "matrices = layers * (h*(q + 2*kv) + q*h + 3*h*m); head = vocab*h; pairs = Σ n*c + n*(n+1)//2; "
        "flops = 2*matrices*Σn + 2*head*len(query_lens) + 4*q*layers*pairs; "
        "bytes = 2*(matrices + head) + 2*layers*kv*2*(Σ(c + n) + Σn), with q = heads*head_dim, kv = kv_heads*head_dim.",
    ),
)

PREDICT_DECODE = Exercise(
    "02.2",
    "Predict tokens per second",
    function="predict_decode",
    points=4,
    minutes=15,
    difficulty=2,
    hints=(
        "How long does the step need for its operations alone, and how long for its bytes alone?",
        "Both go on at once, so the step takes the longer of the two; and it yields one token for every request. The "
        "weights are read once a step, the KV cache once for each request: their ratio gives the batch.",
        "cost = decode_cost(config, context, batch); seconds = max(cost.flops / machine.rate('bfloat16'), cost.bytes / "
        "machine.read_bandwidth); batch / seconds. For the other, one = decode_cost(config, context): "
        "math.ceil(one.weight_bytes / one.kv_read_bytes).",
    ),
)
