"""Chapter 11, fusion and graphs: its exercises in words."""

from minillm.course.exercise import Exercise

ADD_RMS_NORM = Exercise(
    "11.1",
    "A fused RMSNorm in Triton",
    function="add_rms_norm",
    points=6,
    minutes=15,
    difficulty=3,
    seconds=30.0,
    needs="triton",
    uses=("minillm.course.tools.interpreter",),
    hints=(
        "One program has one row in its registers from the load to the stores. Which row is its own, where does it "
        "begin in memory, and what lies in the places beyond the row's end?",
        "total = x + residual is both a result and what is normalised. The mean is over the N values of the row, not "
        "over the BLOCK places: a place beyond the row must hold 0 and the divisor is N. Compute in float32.",
        "offset = tl.program_id(0) * N + column; load x and residual with mask=column < N, other=0.0; total = x + "
        "residual; scale = tl.rsqrt(tl.sum(total * total, 0) / N + eps); store total, and total * scale * weight, both "
        "under the mask.",
    ),
)

FILL_BUFFERS = Exercise(
    "11.2",
    "Padding to a graph's size",
    function="fill_buffers",
    points=6,
    minutes=15,
    difficulty=3,
    changes=("buffers",),
    uses=(),
    hints=(
        "A recording reads the buffers at its own size, whatever was put there last. Who wrote the rows that this step "
        "does not fill?",
        "A row of padding must write nothing (its slot is -1) and read nothing (its length is 0). What a length of 0 "
        "keeps from being read needs no clearing, and neither do table columns beyond a request's length. An address "
        "never changes: copy_ into the buffers, never put another tensor in their place.",
        "refuse first; size = the least of sizes that is >= the requests; for each name: getattr(buffers, name)"
        "[:n].copy_(getattr(batch, name)); then slot_mapping[n:size].fill_(-1), seq_lens[n:size].fill_(0), and the "
        "table's [:n, :width].",
    ),
)

BYTES_MOVED = Exercise(
    "11.3",
    "What fusion saves, in bytes",
    function="bytes_moved",
    points=4,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "Take one kernel at a time: what must come in from memory, and what must go out?",
        "A kernel reads a tensor once, however many of its operations use it, and does not read what it made itself. "
        "It writes a tensor only if a later kernel reads it, or if it is a result.",
        "for each kernel: made = its outputs; read = the set of its inputs without made; needed later = inputs of all "
        "later kernels, and the results; write = made & needed. Add up the sizes.",
    ),
)
