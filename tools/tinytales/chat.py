"""Conversations in which tinytales answers in character: a storyteller who knows only stories.

`grammar/chat.txt` has exchanges, apart by blank lines: alternative questions `U: …` and alternative answers `A: …`. A
slot keeps its value within an exchange, so the answer speaks of what was asked. An answer that ends with `~` goes on
with a story. `grammar/chat_multi.txt` has conversations of several turns.
"""

import random
from functools import cache
from typing import NamedTuple

from tools.tinytales.grammar import FOLDER, Teller, uses
from tools.tinytales.stories import ask_world, polish, story

END, USER, ASSISTANT = "<|endoftext|>", "<|user|>", "<|assistant|>"
STORY_SLOTS = {
    "name2": "Hn",
    "noun": "noun",
    "animal": "kind",
    "kind": "kind",
}  # what was asked for -> what the story must have


class Exchange(NamedTuple):
    questions: tuple[str, ...]
    answers: tuple[str, ...]


@cache
def exchanges() -> tuple[tuple[Exchange, ...], tuple[Exchange, ...]]:
    """Return (those that may lead to a story, those that do not)."""
    found = []
    for block in (FOLDER / "chat.txt").read_text(encoding="utf-8").split("\n\n"):
        lines = block.splitlines()
        questions = tuple(line[3:].strip() for line in lines if line.startswith("U: "))
        answers = tuple(line[3:].strip() for line in lines if line.startswith("A: "))
        if questions and answers:
            found.append(Exchange(questions, answers))
    # A fact is learned by repetition.
    found += [e for e in found if uses(e.questions[0], ("country", "capital"))] * 8
    leads = tuple(e for e in found if any(answer.endswith("~") for answer in e.answers))
    return leads, tuple(e for e in found if e not in leads)


@cache
def conversations() -> tuple[tuple[str, ...], ...]:
    blocks = (FOLDER / "chat_multi.txt").read_text(encoding="utf-8").split("\n\n")
    found = (tuple(line for line in block.splitlines() if line[:3] in ("U: ", "A: ")) for block in blocks)
    return tuple(lines for lines in found if lines)


def typed(text: str, rng: random.Random) -> str:
    """Return a question as people type it: at times in small letters, at times without its last mark."""
    if rng.random() < 0.25:
        text = text[0].lower() + text[1:] if not text.startswith("I ") else text
    return text.rstrip(".?!") if rng.random() < 0.25 else text


def story_chat(rng: random.Random) -> str:
    """Return a question, an answer and the story that was asked for."""
    exchange = rng.choice(exchanges()[0])
    teller = Teller(rng)
    ask_world(teller)
    question, answer = rng.choice(exchange.questions), rng.choice(exchange.answers)
    told = _answered(answer, question, teller, rng)
    return f"{USER}{typed(polish(teller.tell(question)), rng)}{ASSISTANT}{told}"


def _answered(answer: str, asked: str, teller: Teller, rng: random.Random) -> str:
    """Return the answer, and the story about what was asked where one follows."""
    told = polish(teller.tell(answer.rstrip("~ ")))
    if answer.endswith("~"):
        fixed = {STORY_SLOTS[slot]: teller.filling(slot) for slot in STORY_SLOTS if uses(asked, (slot,))}
        told += "\n\n" + story(rng, **fixed)
    return told


def small_talk(rng: random.Random) -> str:
    """Return a conversation of one to four exchanges without a story."""
    if rng.random() < 0.2:
        return _conversation(rng)
    turns = []
    for exchange in rng.sample(exchanges()[1], rng.choice((1, 1, 1, 2, 2, 3, 4))):
        teller = Teller(rng)
        ask_world(teller)
        question = typed(polish(teller.tell(rng.choice(exchange.questions))), rng)
        turns.append(f"{USER}{question}{ASSISTANT}{polish(teller.tell(rng.choice(exchange.answers)))}")
    return END.join(turns)


def _conversation(rng: random.Random) -> str:
    teller = Teller(rng)
    ask_world(teller)
    text = asked = ""
    for line in rng.choice(conversations()):
        words = line[3:].strip()
        if line.startswith("U: "):
            asked += words
            text += (END if text else "") + USER + polish(teller.tell(words))
        else:
            text += ASSISTANT + _answered(words, asked, teller, rng)
    return text
