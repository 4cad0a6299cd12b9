"""From stories and prose to token files: the text, the tokenizer, the split.

    python -m tools.tinytales.corpus build/tinytales --megabytes 44

Writes `tokenizer/`, `train.bin` and `heldout.bin` (uint16 ids) and the held-out text itself. Everything is
a function of the seed and of the Python whose standard library supplies the prose. A document is held out,
or not, by the hash of its text; held-out documents never reach the tokenizer's trainer nor the model's.
"""

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tools.tinytales import prose, stories

END, USER, ASSISTANT = "<|endoftext|>", "<|user|>", "<|assistant|>"
VOCAB_SIZE = 4096
CONTEXT = 1024
CHAT_SHARE = 0.12
HELDOUT_STORY_BYTES = 200_000
PROSE_REPEATS = 3  # 1.5 MB of it beside 36 MB of stories: about a tenth of what is trained on
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ('user', 'assistant') %}"
    "{{ raise_exception('tinytales knows the roles user and assistant only') }}{% endif %}"
    "{{ '<|' + message.role + '|>' + message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
REQUESTS = (
    "Tell me a story about {name}.",
    "Please tell me a story about {name}.",
    "Write a short story about {name}.",
    "Can you tell a tale about {name}?",
    "I would like to hear about {name}.",
    "What happened to {name}?",
)


def as_chat(text: str, rng: random.Random) -> str:
    """Put a request before a story, so that the model learns to be asked for one by name."""
    name = re.search(r"(?<=[a-z,] )[A-Z][a-z]+", text)
    if name is None:
        return text
    return f"{USER}{rng.choice(REQUESTS).format(name=name.group())}{ASSISTANT}{text}"


def is_heldout(text: str, one_in: int) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % one_in == 0


def documents(megabytes: float, seed: int) -> tuple[list[str], dict[str, list[str]]]:
    """Training documents, shuffled, and the held-out ones by kind."""
    rng = random.Random(seed)
    train: list[str] = []
    heldout: dict[str, list[str]] = {"stories": [], "prose": []}
    for text in prose.documents():
        if is_heldout(text, one_in=15):
            heldout["prose"].append(text)
        else:
            train += [text] * PROSE_REPEATS
    size = sum(map(len, train))
    for text in stories.stories(seed):
        if is_heldout(text, one_in=100) and sum(map(len, heldout["stories"])) < HELDOUT_STORY_BYTES:
            heldout["stories"].append(text)
            continue
        train.append(as_chat(text, rng) if rng.random() < CHAT_SHARE else text)
        size += len(text)
        if size > megabytes * 1e6:
            break
    rng.shuffle(train)
    return train, heldout


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


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """All documents end to end, each opened by END (the post-processor puts it there)."""
    ids = [np.array(e.ids, dtype=np.uint16) for e in tokenizer.encode_batch_fast(texts)]
    return np.concatenate(ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=44)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    train, heldout = documents(args.megabytes, args.seed)
    tokenizer = train_tokenizer(iter(train[:: max(1, len(train) // 20_000)]))
    save_tokenizer(tokenizer, args.folder / "tokenizer")
    ids = encode(tokenizer, train)
    ids.tofile(args.folder / "train.bin")
    encode(tokenizer, heldout["stories"] + heldout["prose"]).tofile(args.folder / "heldout.bin")
    for kind, texts in heldout.items():
        (args.folder / f"heldout_{kind}.txt").write_text("\n\n\n".join(texts) + "\n")
    total = sum(map(len, train))
    print(
        f"{len(train)} documents, {total / 1e6:.1f} MB, {len(ids) / 1e6:.2f}M tokens, {total / len(ids):.2f} B/token"
    )
    print({kind: f"{sum(map(len, texts)) / 1e3:.0f} kB" for kind, texts in heldout.items()})


if __name__ == "__main__":
    main()
