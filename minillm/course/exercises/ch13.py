"""Chapter 13, serving: its exercises in words."""

from minillm.course.exercise import Exercise

EVENT_STREAM = Exercise(
    "13.1",
    "Server-Sent Events",
    function="EventStream",
    points=7,
    minutes=20,
    difficulty=3,
    uses=(),
    hints=(
        "A chunk may end anywhere. What must `feed` remember between two calls? Think of a chunk that ends inside a "
        "character, inside a line, between CR and LF, and before the empty line of an event.",
        "Keep the bytes of the line that is not complete yet, and the data lines of the event that is not complete "
        "yet. Decode a line when it is complete: then it has no half characters. A CR at the end of a chunk may be "
        "the first half of CRLF, so keep it for the next call.",
        "self.buffer += chunk; end = len(self.buffer) - self.buffer.endswith(b'\\r'); lines = "
        "re.split(rb'\\r\\n|\\r|\\n', self.buffer[:end]); self.buffer = lines.pop() + self.buffer[end:]. For each "
        "line: name, _, value = line.partition(b':'). If the name is b'data', append value.removeprefix(b' "
        "').decode() to self.data. If the line is empty and self.data is not, an event is complete: "
        "'\\n'.join(self.data).",
    ),
)

STOP_STRINGS = Exercise(
    "13.2",
    "Stop strings",
    function="StopStrings",
    points=7,
    minutes=20,
    difficulty=4,
    uses=(),
    hints=(
        "When may a character be shown? Which texts must still be searched for a stop string when the next piece "
        "comes?",
        "Hold back the longest end of the text that is also the beginning of a stop string. Search the held text and "
        "the new piece together. If several stop strings are found, compare where they end.",
        "text = self.held + piece. found = [(text.find(stop) + len(stop), i) for i, stop in enumerate(self.stop) if "
        "stop in text]. If there is one, min(found) gives its end and its index. Otherwise, held = max(n for stop in "
        "self.stop for n in range(len(stop)) if text.endswith(stop[:n])), with 0 for no stop strings; show text[: "
        "len(text) - held].",
    ),
)

ADMISSION = Exercise(
    "13.3",
    "Admission under a queue limit",
    function="AdmissionQueue",
    points=6,
    minutes=15,
    difficulty=2,
    uses=(),
    hints=(
        "How many requests must leave the queue before one more may join it? How long does that take?",
        "One more request fits if num_waiting < max_num_waiting. Otherwise num_waiting - max_num_waiting + 1 requests "
        "must finish first: divide by the rate, round up, and keep the result from 1 to 60. Only waiting requests use "
        "places: a request that has started, or whose client has left, does not.",
        "retry_after: return None if num_waiting < max_num_waiting; return 1 if the rate is 0; otherwise return "
        "min(60, max(1, math.ceil((num_waiting - max_num_waiting + 1) / finished_per_second))). arrive: seconds = "
        "self.retry_after(len(self.waiting), …); append the request if seconds is None. start: popleft() of a deque, "
        "or None. leave: remove the request if it is in the deque.",
    ),
)

ROUTE = Exercise(
    "13.4",
    "Least-loaded against prefix-aware routing",
    function="route",
    points=6,
    minutes=12,
    difficulty=2,
    uses=("minillm.serving.routing.Candidate", "minillm.serving.routing.__create_fn__"),
    hints=(
        "How many tokens does a replica compute until this prompt is done, if it gets the request?",
        "It computes its unfinished tokens, and the tokens of this prompt that its cache does not have. Both are "
        "numbers of tokens, so add them. Of equal sums, the number of unfinished tokens decides.",
        "return min(range(len(candidates)), key=lambda i: (candidates[i].num_unfinished_tokens + num_prompt_tokens - "
        "candidates[i].num_cached_tokens, candidates[i].num_unfinished_tokens)).",
    ),
)

ABORT = Exercise(
    "13.5",
    "An abort that returns its blocks",
    function="stream",
    points=8,
    minutes=25,
    difficulty=5,
    changes=("engine", "client"),
    hints=(
        "Two things can happen at any moment: the next piece comes, or the client leaves. Which function of asyncio "
        "waits for the first of two tasks? Which statement runs even if the handler is cancelled?",
        "Send the pieces in one task, and wait for client.disconnected() in another. asyncio.wait with "
        "return_when=asyncio.FIRST_COMPLETED waits for the first of them. In `finally`, cancel both tasks, and abort "
        "the request unless request.finished is True. The error of the sending task comes out of its result().",
        "request = engine.submit(prompt), then two tasks: `sending` for a coroutine with the loop `async for piece in "
        "request: await client.send(piece)`, and `gone` for client.disconnected(). try: await asyncio.wait({sending, "
        "gone}, return_when=asyncio.FIRST_COMPLETED); if not gone.done(): sending.result(). except ConnectionError: "
        "pass. finally: sending.cancel(); gone.cancel(); if not request.finished: request.abort().",
    ),
)
