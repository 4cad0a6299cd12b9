"""The template language of the stories: `[a|b]` chooses, `{slot}` is filled from the world of one story.

The texts are in `grammar/`. `# name` opens a plot and `-` a beat; `= name` opens a block of templates. Each further
line is one template. A beat marked `-?` may be left out.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

FOLDER = Path(__file__).with_name("grammar")
FLATNESS = 12.0  # larger: rare words come up more often
TOKEN = re.compile(r"[\[\]|]|\{\w+\}|[^\[\]|{}]+")

T = TypeVar("T")
Part = str | tuple[str, object]  # literal text, ("slot", name) or ("choice", list of part lists)
Filling = str | tuple[str, ...] | Callable[[], str]
"""What a slot holds: a text, several of which each use draws one, or a function that each use calls."""


class Beat(NamedTuple):
    optional: bool
    ways: tuple[str, ...]


def read_lines(name: str) -> list[str]:
    """Return the lines of a grammar file, without the empty ones."""
    return [line for line in (FOLDER / name).read_text(encoding="utf-8").splitlines() if line.strip()]


def read_words(name: str) -> tuple[str, ...]:
    """Return the comma-separated entries of a word list, each once, in their order."""
    words = (" ".join(word.split()) for word in (FOLDER / name).read_text(encoding="utf-8").split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def read_blocks(name: str, mark: str = "= ") -> dict[str, tuple[str, ...]]:
    """Return the templates of each block of a grammar file."""
    blocks: dict[str, list[str]] = {}
    block: list[str] = []
    for line in read_lines(name):
        if line.startswith(mark):
            block = blocks.setdefault(line.removeprefix(mark).strip(), [])
        else:
            block.append(line)
    return {title: tuple(lines) for title, lines in blocks.items()}


def read_plots(name: str) -> tuple[dict[str, tuple[Beat, ...]], dict[str, tuple[str, ...]]]:
    """Return the plots of a grammar file, and its blocks without beats (endings, links)."""
    plots: dict[str, tuple[Beat, ...]] = {}
    plain: dict[str, tuple[str, ...]] = {}
    for title, lines in read_blocks(name, mark="# ").items():
        beats: list[tuple[bool, list[str]]] = []
        for line in lines:
            if line.startswith("-"):
                beats.append((line.startswith("-?"), []))
            elif beats:
                beats[-1][1].append(line)
        if beats:
            plots[title] = tuple(Beat(optional, tuple(ways)) for optional, ways in beats if ways)
        else:
            plain[title] = lines
    return plots, plain


def _parse(tokens: list[str], position: int = 0) -> tuple[list[list[Part]], int]:
    """Parse variants up to the closing bracket; return them and the position behind it."""
    variants: list[list[Part]] = [[]]
    while position < len(tokens) and tokens[position] != "]":
        token = tokens[position]
        if token == "[":
            inner, position = _parse(tokens, position + 1)
            variants[-1].append(("choice", inner))
        elif token == "|":
            variants.append([])
        else:
            variants[-1].append(("slot", token[1:-1]) if token[0] == "{" else token)
        position += 1
    return variants, position


@cache
def _compiled(template: str) -> list[Part]:
    return _parse(TOKEN.findall(template))[0][0]


class Teller:
    """Expands templates for one story. `state` is the world, `told` the templates that were already used."""

    def __init__(self, rng: random.Random) -> None:
        self.random, self.sample = rng.random, rng.sample
        self.state: dict[str, Filling] = {}
        self.told: set[str] = set()

    def pick(self, entries: Sequence[T]) -> T:
        return entries[int(len(entries) * self.random())]

    def zipf(self, entries: Sequence[T]) -> T:
        """Draw with probability falling like 1/(rank + FLATNESS): Zipf's law in Mandelbrot's form."""
        return entries[int(FLATNESS * (1 + len(entries) / FLATNESS) ** self.random() - FLATNESS)]

    def fresh(self, entries: Sequence[str]) -> str:
        """Draw a template that this story has not used, if a few tries find one."""
        for _ in range(6):
            template = self.pick(entries)
            if template not in self.told:
                break
        self.told.add(template)
        return template

    def tell(self, template: str) -> str:
        """Return the template with every choice made and every slot filled."""
        out: list[str] = []
        self._expand(_compiled(template), out)
        return "".join(out)

    def _expand(self, parts: list[Part], out: list[str]) -> None:
        for part in parts:
            if isinstance(part, str):
                out.append(part)
            elif part[0] == "choice":
                self._expand(self.pick(part[1]), out)  # type: ignore[arg-type]
            else:
                out.append(self.filling(str(part[1])))

    def filling(self, name: str) -> str:
        value = self.state[name]
        if callable(value):
            return value()
        return value if isinstance(value, str) else self.tell(self.pick(value))


def uses(template: str, names: Mapping[str, object] | Sequence[str]) -> bool:
    """Return True if the template has one of these slots."""
    return any(slot in names for slot in re.findall(r"\{(\w+)\}", template))
