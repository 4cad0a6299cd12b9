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
        "Two loops: over `running`, then over `waiting` from its front. What they share is the budget that is left.",
        "A request computes min(what it misses, what is left of the budget), and what it misses is num_tokens - "
        "num_computed_tokens, looked up after `admit`, which may have found a prefix. `admit` takes blocks when it "
        "says yes: ask it only if there is budget and a place, and stop at the first no.",
        "for request in running: n = min(missing, budget); if n: append, budget -= n. Then while waiting and budget "
        "and len(running) < max_num_seqs and admit(waiting[0]): request = waiting.pop(0); running.append(request); the "
        "same two lines.",
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
        "In each step the requests that decode come first. How much of the budget is left for the prompt?",
        "A step gives the prompt at most budget - num_decoding tokens, and no more than the threshold unless that is "
        "0. If nothing is left the prompt never gets done.",
        "room = budget - num_decoding; if threshold: room = min(room, threshold); ValueError if room < 1; then room, "
        "room, … and what is left over, if anything is.",
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
        "Write it as plain Python lists first, chunk after chunk, and make tensors of them at the end.",
        "Token i of a chunk stands at position p = num_computed + i of its own text, and its slot is block_table[p // "
        "block_size] * block_size + p % block_size. query_start has one entry more than there are requests: it begins "
        "with 0 and ends with the number of all tokens.",
        "for chunk in chunks: places = range(chunk.num_computed, chunk.num_computed + len(chunk.token_ids)); extend "
        "token_ids, positions and slots; query_start.append(len(token_ids)). int32 for query_start, int64 for the "
        "rest.",
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
        "Try `memory.grow(request)`; if it says no, somebody must go; then try again. Who goes, and can it be "
        "`request`?",
        "The newest goes: the last of `running`, which may be `request` itself. Its blocks go back, so nothing of it "
        "is computed any more; its tokens, prompt and outputs, stay. It came before all that wait, so it waits "
        "before them.",
        "while not memory.grow(request): victim = running.pop(); memory.free(victim); victim.num_computed_tokens = 0; "
        "waiting.insert(0, victim); return False if victim is request. After the loop: return True.",
    ),
)
