"""Chapter 08, continuous batching: its exercises in words."""

from minillm.course.exercise import Exercise

SCHEDULE = Exercise(
    "08.1",
    "One step under a budget",
    function="schedule",
    points=6,
    minutes=15,
    difficulty=3,
    changes=("running", "waiting"),
    uses=(),
    hints=(
        "Write two loops: one over `running`, then one over `waiting` from its front. Both take tokens from "
        "the same budget.",
        "A request computes min(missing tokens, remaining budget). The missing tokens are num_tokens - "
        "num_computed_tokens. Read this after `admit`, which may have found a prefix. `admit` takes blocks "
        "when it returns True. So call it only if budget and a place are left, and stop at the first False.",
        "for request in running: n = min(missing, budget); if n: append (request, n), budget -= n. Then "
        "while waiting and budget and len(running) < max_num_seqs and admit(waiting[0]): request = "
        "waiting.pop(0); running.append(request); then the same two lines.",
    ),
)

PLAN_CHUNKS = Exercise(
    "08.2",
    "The chunks of a long prompt",
    function="plan_chunks",
    points=4,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "In each step, the decoding requests come first. How much of the budget is left for the prompt?",
        "A step gives the prompt at most budget - num_decoding tokens, and at most `threshold` tokens unless "
        "it is 0. If no token is left for the prompt, it can never be computed.",
        "room = budget - num_decoding; if threshold: room = min(room, threshold); raise ValueError if room < "
        "1. The chunks are room, room, …, and the rest if it is not 0.",
    ),
)

RAGGED_BATCH = Exercise(
    "08.3",
    "A ragged batch",
    function="ragged_batch",
    points=5,
    minutes=15,
    difficulty=3,
    uses=("minillm.batch.Chunk",),
    hints=(
        "First build plain Python lists, one chunk after another. Make tensors of them at the end.",
        "Token i of a chunk has position p = num_computed + i in its own text. Its slot is block_table[p // "
        "block_size] * block_size + p % block_size. query_start has one more entry than there are requests: "
        "it begins with 0 and ends with the number of all tokens.",
        "for chunk in chunks: places = range(chunk.num_computed, chunk.num_computed + len(chunk.token_ids)); "
        "extend token_ids, positions and slots; query_start.append(len(token_ids)). Use int32 for "
        "query_start and int64 for the others.",
    ),
)

MAKE_ROOM = Exercise(
    "08.4",
    "Preemption",
    function="make_room",
    points=6,
    minutes=15,
    difficulty=3,
    changes=("running", "waiting"),
    uses=(),
    hints=(
        "Call `memory.grow(request)`. If it returns False, preempt a request and call it again. Which "
        "request do you preempt? Can it be `request` itself?",
        "Preempt the newest, the last of `running`. It may be `request` itself. Its blocks are freed, so "
        "none of its tokens is computed any more. Its tokens, prompt and outputs, stay. It arrived before "
        "all waiting requests, so it goes to the front of `waiting`.",
        "while not memory.grow(request): victim = running.pop(); memory.free(victim); victim.num_computed_tokens = 0; "
        "waiting.insert(0, victim); return False if victim is request. After the loop: return True.",
    ),
)
