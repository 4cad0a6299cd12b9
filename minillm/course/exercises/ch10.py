"""Chapter 10, speculative decoding: its exercises in words."""

from minillm.course.exercise import Exercise

ACCEPT_OR_CORRECT = Exercise(
    "10.1",
    "Accept or correct",
    function="accept_or_correct",
    points=6,
    minutes=15,
    difficulty=3,
    uses=(),
    hints=(
        "Loop over the drafts, and return at the first rejection. How many tokens does a step return if it rejects "
        "draft i? How many if it accepts all k drafts?",
        "Draft x in row i is accepted if random(Stream.ACCEPT, i) < p[i, x] / q[i, x], as Python numbers. After a "
        "rejection there is exactly one more token, drawn from the part of p[i] that exceeds q[i]. After k accepted "
        "drafts there is exactly one more token, drawn from p[k].",
        "for i, x in enumerate(drafts): if random(Stream.ACCEPT, i) >= float(p[i, x]) / float(q[i, x]): return "
        "drafts[:i] + [draw((p[i] - q[i]).clamp(min=0), random(Stream.RESIDUAL, i))]. After the loop: return drafts + "
        "[draw(p[k], random(Stream.BONUS, k))] with k = len(drafts).",
    ),
)

RESIDUAL = Exercise(
    "10.2",
    "The residual",
    function="residual",
    points=5,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "Where does p give more to a token than q? Only these tokens can correct a draft.",
        "Clip p - q at 0 before you divide by the sum of each row. A row whose sum is 0 has no residual, and the "
        "division gives 0 / 0 there: such a row of the result is p's.",
        "rest = (p - q).clamp(min=0); total = rest.sum(-1, keepdim=True); return torch.where(total > 0, rest / total, "
        "p).",
    ),
)

NGRAM = Exercise(
    "10.3",
    "An n-gram proposer",
    function="ngram",
    points=6,
    minutes=15,
    difficulty=3,
    uses=(),
    hints=(
        "Try the longest match first. For each length, search from the end of the text to its beginning.",
        "The last n tokens are at the start len(token_ids) - n. An earlier match has a smaller start, so at least one "
        "token follows it. A match of n tokens needs a text of at least n + 1 tokens. The proposal begins n tokens "
        "after the start of the match.",
        "for n in range(min(longest, len(token_ids) - 1), shortest - 1, -1): for start in range(len(token_ids) - n - "
        "1, -1, -1): if token_ids[start : start + n] == token_ids[-n:]: return the `limit` tokens from start + n. At "
        "the end: return [].",
    ),
)

BEST_K = Exercise(
    "10.4",
    "The speed-up, and the best k",
    function="best_k",
    points=6,
    minutes=15,
    difficulty=3,
    uses=(),
    hints=(
        "A step of ordinary decoding yields one token and costs 1. How many tokens does a step with k drafts yield on "
        "average, and what does it cost?",
        "Token number i + 1 of a step exists if the first i drafts are accepted, with the probability alpha^i. So k "
        "drafts yield the sum of alpha^i for i = 0 … k, the last token included. The step costs k * draft_cost + "
        "verify_costs[k].",
        "for k in range(len(verify_costs)): speedup = sum(alpha**i for i in range(k + 1)) / (k * draft_cost + "
        "verify_costs[k]). Keep k if its speed-up is larger than the best so far, beginning with k = 0. Return the "
        "pair.",
    ),
)

COMMIT = Exercise(
    "10.5",
    "Commit several tokens",
    function="commit",
    points=6,
    minutes=15,
    difficulty=4,
    changes=("request",),
    uses=(),
    hints=(
        "In which order do you append tokens, correct num_computed_tokens, and publish? Which of these steps needs the "
        "result of another one?",
        "Append sampled[i] before you compare it with drafts[i]: the first token that differs is kept too. Stop after "
        "it, or when `request.finished` is True. Then the cache is right for all tokens of the text except the newest. "
        "Only blocks that are full of these tokens may be published.",
        "drafts, request.drafts = request.drafts, []; for token, draft in zip(sampled, [*drafts, None]): "
        "request.append(token); break if token != draft or request.finished. Then num_computed_tokens = "
        "len(token_ids) - 1, first = num_published, num_published = num_computed_tokens // block_size, and return "
        "block_table[first : num_published].",
    ),
)
