"""Chapter 01, two phases: its exercises in words."""

from minillm.course.exercise import Exercise

CAUSAL_ATTENTION = Exercise(
    "01.1",
    "Causal attention",
    function="causal_attention",
    points=4,
    minutes=15,
    difficulty=2,
    uses=(),
    hints=(
        "Write the scores of one head first: a [T, T] matrix, one row per query. What may row t not look at?",
        "Each row of weights sums to 1 over the keys j <= t and is 0 elsewhere; so the mask must act before the "
        "softmax, and q·k is divided by sqrt(D) so that its variance does not grow with D.",
        "scores = torch.einsum('thd,shd->hts', q, k) / D**0.5; masked_fill with -inf where "
        "torch.ones(T, T).triu(1) is 1; softmax over the last axis; back with 'hts,shd->thd'.",
    ),
)

STABLE_SOFTMAX = Exercise(
    "01.2",
    "A stable softmax",
    function="softmax",
    points=3,
    minutes=5,
    difficulty=1,
    uses=(),
    hints=(
        "exp(89) is infinite in float32, and exp(-104) is 0. Which scores make exp overflow, and which make "
        "a whole row 0?",
        "Taking the same number off all scores of a row changes nothing: it cancels between numerator and "
        "denominator. With the row's own maximum taken off, the largest exponential is exp(0) = 1.",
        "e = torch.exp(x - x.max(dim=-1, keepdim=True).values); divide by e.sum(dim=-1, keepdim=True).",
    ),
)

DISTRIBUTION = Exercise(
    "01.3",
    "Temperature, top-k, top-p",
    function="distribution",
    points=6,
    minutes=12,
    difficulty=3,
    hints=(
        "Take the settings one at a time, on scores: a token that is cut gets the score -inf. Top-p "
        "needs a softmax of what is left by then, to see the probabilities; one more at the end gives the result.",
        "The nucleus is the smallest set of the likeliest tokens whose probabilities reach top_p. So a "
        "token stays as long as the sum of those *before* it is still below top_p, and the likeliest always "
        "stays.",
        "best, order = (logits / temperature).sort(descending=True); best[top_k:] = -inf if top_k; p = "
        "best.softmax(-1); best[p.cumsum(-1) - p >= top_p] = -inf; then best.softmax(-1) goes back by "
        "scatter(0, order, …).",
    ),
)

GENERATE = Exercise(
    "01.4",
    "The generate loop",
    function="generate",
    points=5,
    minutes=8,
    difficulty=2,
    hints=(
        "What does the model need to see to choose the second new token? Write down the arguments of the "
        "first three calls of `forward`.",
        "Before step n the text is the prompt and n tokens; one forward pass gives one row for each of "
        "them, and the last row is about the token that comes next. N tokens cost N passes.",
        "ids = list(prompt_ids); new = []; while len(new) < max_tokens: token = sample(forward(ids)[-1]); "
        "append it to both; leave the loop if it is eos_token_id.",
    ),
)
