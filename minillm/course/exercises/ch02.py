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
        "There are three kinds of work: the matrices that every new token is multiplied by, the head, and "
        "attention. There are two kinds of bytes: the weights, which a step reads once for the whole batch, "
        "and the cache, which belongs to each request.",
        "A matrix of N numbers costs 2·N FLOP per token and 2·N bytes per step. Query i of a request sees "
        "context + i + 1 keys. q·k and weight·v cost 2·head_dim FLOP each, for every query head. The cache "
        "holds one key and one value for each KV head and layer. A step reads the entries that its queries "
        "see, and writes the new ones.",
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
        "How long does the step need for its operations alone? How long does it need for its bytes alone?",
        "Arithmetic and memory work at the same time, so the step takes the longer of the two times. It "
        "yields one token for every request. A step reads the weights once, and the KV cache once for each "
        "request. The ratio of the two is the batch that you look for.",
        "cost = decode_cost(config, context, batch); seconds = max(cost.flops / machine.rate('bfloat16'), "
        "cost.bytes / machine.read_bandwidth); the speed is batch / seconds. For the second number, one = "
        "decode_cost(config, context); math.ceil(one.weight_bytes / one.kv_read_bytes).",
    ),
)
