"""From stories and prose to token files: the texts, the tokenizer, the splits.

    python -m tools.tinytales.corpus build/tinytales --prose FOLDER --megabytes 44

Writes `tokenizer/`, `train.bin` and `heldout.bin` (uint16 ids), the held-out and the calibration texts, and
`corpus.json` with the sizes and the hash of each input. Everything is a function of the seed and the prose. A story or
a tale is held out, or kept for calibration, by the hash of its text; neither reaches the tokenizer's trainer or the
model's.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tools.tinytales import prose
from tools.tinytales.chat import ASSISTANT, END, USER, small_talk, story_chat
from tools.tinytales.stories import continuation, story

VOCAB_SIZE = 4096
CONTEXT = 1024
SPLIT_BYTES = {"stories": 98_000, "tales": 98_000, "calibration_stories": 60_000, "calibration_tales": 40_000}
PROSE_REPEATS = 3
KINDS = {"story": 0.50, "continued": 0.12, "middle": 0.05, "story chat": 0.09, "small talk": 0.24}
"""The shares of the documents that the grammar makes. A small talk is an eighth as long as the others."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ('user', 'assistant') %}"
    "{{ raise_exception('tinytales knows the roles user and assistant only') }}{% endif %}"
    "{{ '<|' + message.role + '|>' + message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def split_of(text: str, one_in: int) -> str:
    """Return "heldout", "calibration" or "train", by the hash of the text."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % one_in
    return {0: "heldout", 1: "calibration"}.get(number, "train")


def grammar_documents(openings: list[str], seed: int) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) forever."""
    rng = random.Random(seed)
    kinds, weights = list(KINDS), list(KINDS.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        if kind == "story":
            yield kind, as_typed(story(rng), rng)
        elif kind == "continued":
            yield kind, continuation(rng, rng.choice(openings))
        elif kind == "middle":
            yield kind, story(rng).split("\n\n", 1)[1]
        else:
            yield kind, story_chat(rng) if kind == "story chat" else small_talk(rng)


def as_typed(text: str, rng: random.Random) -> str:
    """Return the story with a small first letter now and then, as people type."""
    return text[0].lower() + text[1:] if rng.random() < 0.06 and not text.startswith("I ") else text


def documents(folder: Path, megabytes: float, seed: int) -> tuple[list[str], dict[str, list[str]]]:
    """Return the training documents, shuffled, and the texts of each split that is kept from training."""
    kept: dict[str, list[str]] = {name: [] for name in SPLIT_BYTES}

    def keep(name: str, text: str) -> bool:
        if sum(len(t.encode()) + 3 for t in kept[name]) + len(text.encode()) > SPLIT_BYTES[name]:
            return False
        kept[name].append(text)
        return True

    train: list[str] = []
    tales = []
    for tale in prose.read_tales(folder):
        where = {"heldout": "tales", "calibration": "calibration_tales"}.get(split_of(tale.text, one_in=12))
        if where is None or not keep(where, tale.text):
            tales.append(tale)
    train += [passage for tale in tales for passage in prose.passages(tale)] * PROSE_REPEATS
    size = sum(map(len, train))
    for kind, text in grammar_documents(prose.openings(tales), seed):
        split = split_of(text, one_in=100)
        where = (
            {"heldout": "stories", "calibration": "calibration_stories"}.get(split)
            if kind == "story"
            else None
        )
        if where is None or not keep(where, text):
            train.append(text)
            size += len(text)
        if size > megabytes * 1e6:
            break
    random.Random(seed).shuffle(train)
    return train, kept


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A byte-level BPE of 4,096 tokens; each text starts with END, which both begins and ends a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode(tokenizer: Tokenizer, texts: list[str], seed: int) -> np.ndarray:
    """Return all documents end to end, each opened by END (the post-processor puts it there).

    A few are cut behind a space within their first words and encoded in two parts: a prompt that ends with a space
    has that space as a token of its own, which no text read in one part has.
    """
    rng = random.Random(seed)
    ids: list[np.ndarray] = []
    for text, whole in zip(texts, tokenizer.encode_batch_fast(texts), strict=True):
        space = text.find(" ", rng.randrange(120)) + 1 if rng.random() < 0.03 and text[:2] != "<|" else 0
        parts = whole.ids
        if space:
            rest = tokenizer.encode(text[space:], add_special_tokens=False).ids
            parts = tokenizer.encode(text[:space]).ids + rest
        ids.append(np.array(parts, dtype=np.uint16))
    return np.concatenate(ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prose", type=Path, required=True, help="a folder of .txt files with tales")
    parser.add_argument("--megabytes", type=float, default=44)
    parser.add_argument("--tokenizer", type=Path, help="a folder whose tokenizer is kept instead of trained")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    train, kept = documents(args.prose, args.megabytes, args.seed)
    if args.tokenizer:
        tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    else:
        tokenizer = train_tokenizer(iter(train[:: max(1, len(train) // 20_000)]))
    save_tokenizer(tokenizer, args.folder / "tokenizer")
    ids = encode(tokenizer, train, args.seed)
    ids.tofile(args.folder / "train.bin")
    encode(tokenizer, kept["stories"] + kept["tales"], args.seed).tofile(args.folder / "heldout.bin")
    (args.folder / "texts").mkdir(exist_ok=True)
    calibration = kept["calibration_stories"] + kept["calibration_tales"]
    for name, texts in (("stories", kept["stories"]), ("tales", kept["tales"]), ("calibration", calibration)):
        (args.folder / "texts" / f"{name}.txt").write_text("\n\n\n".join(texts) + "\n", encoding="utf-8")
    total = sum(map(len, train))
    tales = sum(len(tale.text) for tale in prose.read_tales(args.prose))
    kept_tales = sum(len(text) for text in kept["tales"] + kept["calibration_tales"])
    prose_characters = PROSE_REPEATS * (tales - kept_tales)
    record = {
        "documents": len(train),
        "characters": total,
        "tokens": len(ids),
        "held out": {name: sum(len(text.encode()) for text in texts) for name, texts in kept.items()},
        "prose": prose.sha256(args.prose),
        "share of prose": prose_characters / total,
        "megabytes": args.megabytes,
        "seed": args.seed,
    }
    (args.folder / "corpus.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2), f"\n{total / len(ids):.2f} characters per token")


if __name__ == "__main__":
    main()
