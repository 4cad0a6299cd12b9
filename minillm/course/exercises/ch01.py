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
        "Write the scores of one head first: a [T, T] matrix, one row per query. Which columns may row t not look "
        "at?",
        "Each row of weights sums to 1 over the keys j <= t, and is 0 elsewhere. So the mask must act before the "
        "softmax. Divide q·k by sqrt(D), so that its variance does not grow with D.",
        "scores = torch.einsum('thd,shd->hts', q, k) / D**0.5; masked_fill them with -inf where torch.ones(T, "
        "T).triu(1) is 1; take the softmax over the last axis; multiply by v with 'hts,shd->thd'.",
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
        "exp(89) is infinite in float32, and exp(-104) is 0. Which scores make exp overflow? Which make a whole "
        "row 0?",
        "Subtracting the same number from all scores of a row changes nothing: it cancels between numerator and "
        "denominator. If you subtract the row's own maximum, the largest exponential is exp(0) = 1.",
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
        "Apply the settings one at a time, to the logits. Give a token that is cut the logit -inf. Top-p needs "
        "probabilities, so it takes a softmax of the logits after top-k. One more softmax at the end gives the "
        "result.",
        "The nucleus is the smallest set of the likeliest tokens whose probabilities sum to at least top_p. So a "
        "token stays if the sum of the tokens *before* it is below top_p. The likeliest token always stays.",
        "best, order = (logits / temperature).sort(descending=True); best[top_k:] = -inf if top_k; p = "
        "best.softmax(-1); best[p.cumsum(-1) - p >= top_p] = -inf if top_p < 1; then scatter(0, order, "
        "best.softmax(-1)) puts the probabilities back in the order of the tokens.",
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
        "What must the model see to predict the second new token? Write down the arguments of the first three "
        "calls of `forward`.",
        "Before step n, the text is the prompt and n new tokens. One forward pass gives one row per token, and the "
        "last row predicts the next token. N tokens cost N passes.",
        "ids = list(prompt_ids); new = []; while len(new) < max_tokens: token = sample(forward(ids)[-1]); append "
        "it to both lists; leave the loop if it is eos_token_id.",
    ),
)
