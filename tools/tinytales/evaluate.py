"""Judge the trained models on text they have never seen, and write what was found into their model cards.

    python -m tools.tinytales.evaluate build/tinytales minillm/models

Perplexity of target, draft and a trigram model on the same held-out tokens, kind by kind; how often the draft would
be accepted, as speculative decoding counts it (the mean over positions of sum_x min(p(x), q(x))); and samples.
"""

import argparse
import json
import math
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import NoCache
from minillm.llm import LLM
from minillm.measure.timing import machine_record
from minillm.perplexity import perplexity
from minillm.sampling import SamplingParams
from tools.tinytales.corpus import PROSE_REPEATS, VOCAB_SIZE

KINDS = ("stories", "tales")
FOLDERS = {"target": "tinytales", "draft": "tinytales-draft"}
OPENINGS = [
    "Once upon a time",
    "Hello, my name is",
    "The capital of France",
    "Dear Anna,",
    "Why is the sky blue?",
    "Rain",
    "In 1969",
    "My computer",
    "It was late, and the train",
    "To make a good soup",
]
Ids = NDArray[np.int64]


class Trigram:
    """p(c | a, b) mixed from trigram, bigram, unigram and uniform (Jelinek and Mercer 1980).

    The weights are fitted by expectation-maximisation on the end of the training tokens, which is not counted.
    """

    def __init__(self, ids: Ids) -> None:
        counted, fit = ids[:-100_000], ids[-100_000:]
        self.total = len(counted)
        self.one = np.bincount(counted, minlength=VOCAB_SIZE)
        self.two = np.unique(self._keys(counted, 2), return_counts=True)
        self.three = np.unique(self._keys(counted, 3), return_counts=True)
        self.weights = np.full(4, 0.25)
        parts = self._parts(fit)
        for _ in range(30):
            shares = parts * self.weights
            self.weights = (shares / shares.sum(1, keepdims=True)).mean(0)

    @staticmethod
    def _keys(ids: Ids, n: int) -> Ids:
        """Every run of n tokens as one number."""
        length = len(ids) - n + 1
        key = np.zeros(length, dtype=np.int64)
        for i in range(n):
            key = key * VOCAB_SIZE + ids[i : i + length]
        return key

    @staticmethod
    def _count(table: tuple[Ids, Ids], keys: Ids) -> Ids:
        at = np.minimum(np.searchsorted(table[0], keys), len(table[0]) - 1)
        return np.where(table[0][at] == keys, table[1][at], 0)

    def _parts(self, ids: Ids) -> NDArray[np.float64]:
        """The four estimates for each token from the third on, [N, 4]."""
        a_b, b = self._keys(ids, 2)[:-1], ids[1:-1]
        b_c, a_b_c, c = self._keys(ids, 2)[1:], self._keys(ids, 3), ids[2:]
        three = self._count(self.three, a_b_c) / np.maximum(self._count(self.two, a_b), 1)
        two = self._count(self.two, b_c) / np.maximum(self.one[b], 1)
        return np.stack([three, two, self.one[c] / self.total, np.full(len(c), 1 / VOCAB_SIZE)], axis=1)

    def perplexity(self, ids: Ids) -> float:
        return math.exp(-np.log(self._parts(ids) @ self.weights).mean())


def distributions(llm: LLM, ids: list[int]) -> torch.Tensor:
    """The next-token distribution at every position of a window, [N, vocab] float32."""
    batch = Batch.of([Chunk(ids, 0, [0])], llm.engine.max_model_len)
    hidden = llm.model(batch, NoCache(llm.model.config, llm.engine.max_model_len))
    return llm.model.logits(hidden).softmax(-1)


def acceptance(target: LLM, draft: LLM, text: str, num_windows: int = 12) -> tuple[float, float]:
    """How often a draft token is accepted when sampled, and how often both models' likeliest token is the same."""
    assert target.tokenizer is not None
    ids = target.tokenizer.encode(text)
    window = min(512, len(ids) // num_windows)
    sampled, greedy = [], []
    for i in range(num_windows):
        part = ids[i * window : (i + 1) * window]
        p, q = distributions(target, part), distributions(draft, part)
        sampled.append(torch.minimum(p, q).sum(-1).mean().item())
        greedy.append((p.argmax(-1) == q.argmax(-1)).float().mean().item())
    return float(np.mean(sampled)), float(np.mean(greedy))


def step_ratio(target: LLM, draft: LLM, rounds: int = 9, tokens: int = 48) -> float:
    """Return the time of a draft's decode step as a share of the target's, on one thread.

    Both are medians of interleaved rounds. More threads speed up only the matrices of the target.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    times: dict[LLM, list[float]] = {target: [], draft: []}
    for number in range(2 * rounds + 2):
        llm = (target, draft)[number % 2]
        began = time.perf_counter()
        llm.generate("Once upon a time", params)
        if number >= 2:
            times[llm].append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return statistics.median(times[draft]) / statistics.median(times[target])


def evaluate(build: Path, models: Path) -> dict[str, object]:
    texts = {kind: (build / "texts" / f"{kind}.txt").read_text(encoding="utf-8") for kind in KINDS}
    llms = {name: LLM(models / folder, max_num_seqs=4) for name, folder in FOLDERS.items()}
    tokenizer = llms["target"].tokenizer
    assert tokenizer is not None
    trigram = Trigram(np.fromfile(build / "train.bin", dtype=np.uint16).astype(np.int64))
    result: dict[str, object] = {}
    for kind, text in texts.items():
        ids = np.array(tokenizer.encode(text))
        figures = {name: perplexity(llm, text) for name, llm in llms.items()}
        sampled, greedy = acceptance(llms["target"], llms["draft"], text)
        result[kind] = {
            "bytes": len(text.encode()),
            "tokens": len(ids),
            "perplexity": {**figures, "trigram": trigram.perplexity(ids)},
            "draft acceptance, sampled": sampled,
            "draft acceptance, greedy": greedy,
        }
    result["draft step / target step"] = step_ratio(llms["target"], llms["draft"])
    params = SamplingParams(max_tokens=120, temperature=0.8, seed=11)
    result["samples"] = [
        f"{output.prompt}{output.outputs[0].text}" for output in llms["target"].generate(OPENINGS, params)
    ]
    return result


CARD = """---
license: mit
language: en
---
# {title}

{what}

| held-out text | size | perplexity: tinytales | tinytales-draft | trigram | draft accepted (sampled / greedy) |
|---|---|---|---|---|---|
{rows}

The trigram model is counted on the same training tokens and mixed with bigrams, unigrams and a uniform floor.
"Accepted" is the mean over held-out positions of sum min(p, q), and the share where both name the same token. A
decode step of the draft takes {ratio:.2f} of the target's time ({machine}, batch 1, on one thread).

| | |
|---|---|
| architecture | Llama: {shape} |
| parameters | {parameters:,}, stored in bfloat16 |
| context | 1,024 tokens |
| tokenizer | byte-level BPE, 4,096 tokens, shared by both models |
| trained on | {tokens:,} tokens in {steps:,} steps, {minutes:.0f} minutes ({machine}), {history} |
| data | stories and conversations from a grammar (`tools/tinytales/grammar/`), and {share:.0%} real prose |
| prose | H. C. Andersen's tales in H. P. Paull's translation (1867–1872, public domain), each {repeats} times |
| hash of the prose | {hashes} |
| held out | {heldout}; chosen by the hash of each text, in `../heldout`, never trained on |
| calibration | `../heldout/calibration.txt`: stories and tales, neither trained on nor held out |
| licence | MIT (weights, tokenizer, stories); the prose is in the public domain |

The prose is not part of this project. With a folder that holds it, such models are made from nothing, with a fixed
seed, by:

```
python -m tools.tinytales.corpus build/tinytales --prose FOLDER --megabytes {megabytes}
python -m tools.tinytales.train build/tinytales --model target --tokens {target_tokens}
python -m tools.tinytales.train build/tinytales --model draft --tokens {draft_tokens}
python -m tools.tinytales.evaluate build/tinytales minillm/models
```

It tells small stories for children and knows nothing of the world: it is here to be measured, taken apart and
quantised, not to be believed.

{samples}
"""
SHAPE = (
    "{num_hidden_layers} layers, hidden {hidden_size}, {num_attention_heads} query and {num_key_value_heads} "
    "KV heads of {head_dim}, MLP {intermediate_size}, tied embeddings"
)
WHAT = {
    "target": "The small language model that comes with minillm: every chapter runs on it, with no network and no GPU.",
    "draft": "The draft model for speculative decoding: it guesses what [tinytales](../tinytales) will say, at an "
    "eighth of the size, and is right only part of the time.",
}


def write_card(name: str, build: Path, models: Path, figures: dict[str, Any]) -> None:
    folder = models / FOLDERS[name]
    config = json.loads((folder / "config.json").read_text())
    logs = {key: json.loads((models / f / "training.json").read_text()) for key, f in FOLDERS.items()}
    corpus = json.loads((build / "corpus.json").read_text())
    log = logs[name]
    rows = []
    for kind in KINDS:
        f = figures[kind]
        p = f["perplexity"]
        rows.append(
            f"| {kind} | {f['bytes'] // 1000} kB | {p['target']:.2f} | {p['draft']:.2f} | {p['trigram']:.2f} "
            f"| {f['draft acceptance, sampled']:.2f} / {f['draft acceptance, greedy']:.2f} |"
        )
    quoted = "\n\n".join("> " + s.strip().replace("\n", "\n> ") for s in figures["samples"])
    card = CARD.format(
        title=FOLDERS[name],
        what=WHAT[name],
        rows="\n".join(rows),
        ratio=figures["draft step / target step"],
        shape=SHAPE.format(**config),
        parameters=LLM(folder, max_num_seqs=1).model.config.num_parameters,
        tokens=log["tokens"],
        steps=log["steps"],
        minutes=log["seconds"] / 60,
        history=log.get("history", "in one run"),
        machine=str(machine_record()["machine"]),
        share=corpus["share of prose"],
        repeats=PROSE_REPEATS,
        hashes=", ".join(f"`{file}` SHA-256 `{digest}`" for file, digest in corpus["prose"].items()),
        heldout=", ".join(f"{figures[k]['bytes'] // 1000} kB of {k}" for k in KINDS),
        megabytes=corpus["megabytes"],
        target_tokens=logs["target"]["tokens"],
        draft_tokens=logs["draft"]["tokens"],
        samples="Ten samples at temperature 0.8, one seed, not chosen:\n\n" + quoted
        if name == "target"
        else "",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("build", type=Path)
    parser.add_argument("models", type=Path)
    args = parser.parse_args()
    (args.models / "heldout").mkdir(parents=True, exist_ok=True)
    for file in (args.build / "texts").glob("*.txt"):
        shutil.copy(file, args.models / "heldout" / file.name)
    for folder in FOLDERS.values():
        shutil.copytree(args.build / folder, args.models / folder, dirs_exist_ok=True)
    figures = evaluate(args.build, args.models)
    (args.models / "evaluation.json").write_text(
        json.dumps({**figures, "machine": machine_record()}, indent=2) + "\n"
    )
    for name in FOLDERS:
        write_card(name, args.build, args.models, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
