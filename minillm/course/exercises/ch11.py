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
        "One program keeps one row in its registers, from the load to the stores. Which row is it, and where "
        "does it begin in memory? What is in the places beyond the row's end?",
        "total = x + residual is both a result and the input of the norm. The mean is over the N values of "
        "the row, not over the BLOCK places. So a place beyond the row must hold 0, and the divisor is N. "
        "Compute in float32.",
        "offset = tl.program_id(0) * N + column; load x and residual with mask=column < N, other=0.0; total "
        "= x + residual; scale = tl.rsqrt(tl.sum(total * total, 0) / N + eps); store total and total * scale "
        "* weight, both with the mask.",
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
        "A recording of size 4 reads 4 rows of the buffers, even if the step has 3 requests. Which step "
        "wrote the rows that this step does not fill?",
        "A row of padding must write nothing (slot -1) and read nothing (length 0). With length 0, the row's "
        "other values are never read, so they need no clearing. The same is true of table columns beyond a "
        "request's length. Copy into the buffers with copy_. Never replace a tensor: its address must not "
        "change.",
        "First return None if nothing fits. Then size = the least of sizes that is >= the number of "
        "requests. For each name: getattr(buffers, name)[:n].copy_(getattr(batch, name)). Then "
        "slot_mapping[n:size].fill_(-1), seq_lens[n:size].fill_(0), and copy the table to [:n, :width].",
    ),
)

BYTES_MOVED = Exercise(
    "11.3",
    "The bytes that fusion saves",
    function="bytes_moved",
    points=4,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "Take one kernel at a time. Which tensors must it read from memory, and which must it write?",
        "A kernel reads a tensor once, however many of its operations use it. It does not read a tensor that "
        "it made itself. It writes a tensor only if a later kernel reads it, or if it is a result.",
        "for each kernel: made = its outputs; read = the set of its inputs without made; needed later = the "
        "inputs of all later kernels, and the results; write = made & needed later. Add up the sizes of read "
        "and write.",
    ),
)
