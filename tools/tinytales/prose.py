"""Real English to train on next to the stories: a folder of text files.

A file holds tales: `# title` on a line, and paragraphs with blank lines between them. The grammar teaches a small
model to tell a story; prose teaches it the words and sentences in which other people begin one.
"""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

PASSAGE_CHARS = 2400
SENTENCE_END = re.compile(r"(?<=[a-z)][.!?]) (?=[A-Z\"])|(?<=[.!?]\") (?=[A-Z\"])")


class Tale(NamedTuple):
    title: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def read_tales(folder: Path) -> list[Tale]:
    """Return every tale of every .txt file in the folder, in the order of their names.

    Raises ValueError if there is none.
    """
    tales = [
        tale for file in sorted(folder.glob("*.txt")) for tale in _tales(file.read_text(encoding="utf-8"))
    ]
    if not tales:
        raise ValueError(f"{folder} has no .txt file with a tale in it: a tale begins with a line '# title'.")
    return tales


def sha256(folder: Path) -> dict[str, str]:
    """Return the hash of each input file, for the model card."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.txt"))}


def passages(tale: Tale) -> list[str]:
    """Cut a tale into passages of whole sentences that fit into the context."""
    parts: list[list[str]] = [[]]
    for sentence in tale.sentences:
        if parts[-1] and sum(map(len, parts[-1])) + len(sentence) > PASSAGE_CHARS:
            parts.append([])
        parts[-1].append(sentence)
    return [" ".join(part) for part in parts]


def openings(tales: list[Tale]) -> list[str]:
    """Return the sentences that can open a story: neither long nor tiny, with every quotation closed."""
    return [s for tale in tales for s in tale.sentences if 25 <= len(s) <= 170 and s.count('"') % 2 == 0]


def _tales(text: str) -> list[Tale]:
    tales = []
    for block in re.split(r"^# ", text, flags=re.M)[1:]:
        title, _, body = block.partition("\n")
        sentences = SENTENCE_END.split(" ".join(body.split()))
        tales.append(Tale(title.strip(), tuple(sentence for sentence in sentences if sentence)))
    return tales
