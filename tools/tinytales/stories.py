"""An endless book of small stories.

A story is a world (characters, things, a narrator), an opening of any kind, a plot with its own cast, and an ending. Names,
pronouns and things stay the same all through it. The texts are in `grammar/`, the words in `words.py`.

    python -m tools.tinytales.stories --seed 1 --count 5
"""

import argparse
import itertools
import random
import re
from collections.abc import Iterator
from functools import cache, partial
from typing import NamedTuple

from tools.tinytales import words
from tools.tinytales.grammar import Teller, read_blocks, read_lines, read_plots, read_words, uses

FRESH: dict[str, tuple[str, ...]] = {  # drawn at each use
    "any_object": words.OBJECTS,
    "any_food": words.FOODS,
    "any_animal": words.ANIMALS,
    "any_place": words.PLACES,
    "any_tree": words.TREES,
    "any_job": words.JOBS,
    "any_colour": words.COLOURS,
    "look": words.LOOKS,
    "tone": words.TONES,
    "smell": words.SMELLS,
    "how": words.HOW,
    "good": words.GOOD,
    "bad": words.BAD,
    "time": words.TIMES,
    "day": words.DAYS,
    "weather": words.WEATHER,
    "num": words.NUMBERS,
    "body": words.BODY,
}
BOUND: dict[str, tuple[str, ...]] = {  # drawn once for a plot
    "food": words.FOODS,
    "food2": words.FOODS,
    "animal": words.ANIMALS,
    "place": words.PLACES,
    "place2": words.PLACES,
    "skill": words.SKILLS,
    "skill2": words.SKILLS,
    "fear": words.FEARS,
    "wish": words.WISHES,
    "build": words.BUILDS,
    "material": words.MATERIALS,
    "material2": words.MATERIALS,
    "work": words.WORK,
    "flowers": words.FLOWERS,
    "tree": words.TREES,
    "job": words.JOBS,
    "job2": words.JOBS,
    "colour": words.COLOURS,
}
NOUNS, PLURALS, TOPICS, ADJECTIVES, SURNAMES, CITIES = (
    read_words(f"{name}.txt") for name in ("nouns", "plurals", "topics", "adjectives", "surnames", "cities")
)
CAPITALS = tuple(tuple(line.split("|")) for line in read_lines("countries.txt"))
WEEKDAYS = words.table("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = words.table(
    "January, February, March, April, May, June, July, August, September, October, November, December"
)
WORLD: dict[
    str, tuple[str, ...]
] = {  # drawn once for a story, all entries alike: the words that a reader may type
    "noun": NOUNS,
    "noun2": NOUNS,
    "nouns": PLURALS,
    "topic": TOPICS,
    "big_topic": TOPICS,
    "adj": ADJECTIVES,
    "surname": SURNAMES,
    "city": CITIES,
    "weekday": WEEKDAYS,
    "month": MONTHS,
    "town": words.TOWNS,
}
SHORTHAND = {
    "a_any_thing": (
        "a {any_object}",
        "a {look} {any_object}",
        "an old {any_object}",
        "a {any_colour} {any_object}",
    ),
    "a_any_animal": ("a {any_animal}", "a {any_animal}", "a {look} {any_animal}"),
    "Time": ("{time}", "{time}", "one {day}", "one {weather} {day}", "a few days later", "the next {day}"),
    "tagH": ("{sayH}",) * 7 + ("{sayH} {tone}",),
    "tagF": ("said {F}", "said {F}", "said {F}", "{F} said", "{fhe} said", "said {F} {tone}", "{verb} {F}"),
    "tagE": ("said {E}", "said {E}", "said {E}", "{E} said", "said {E} {tone}", "{verb} {E}"),
    "askF": ("asked {F}", "asked {F}", "{F} asked", "{fhe} asked", "wondered {F}"),
    "askE": ("asked {E}", "asked {E}", "{E} asked", "{E} asked {tone}"),
    "verb": ("called", "whispered", "answered", "laughed", "cried", "murmured"),
}
NARRATED = {  # the hero of a story in the third person
    "sayH": ("said {H}", "said {H}", "{H} said", "{he} said", "{verb} {H}"),
    "askH": ("asked {H}", "asked {H}", "{H} asked", "{he} asked", "wondered {H}"),
    "they": "they",
    "them": "them",
    "their": "their",
}
TOLD = {  # the hero tells it
    "H": "I",
    "Hs": "my",
    "he": "I",
    "him": "me",
    "his": "my",
    "himself": "myself",
    "sayH": ("I said", "I said", "I {verb}"),
    "askH": ("I asked", "I asked", "I wondered"),
    "they": "we",
    "them": "us",
    "their": "our",
}
OPENINGS = read_blocks("openings.txt")
LETTER_ENDS = OPENINGS.pop("letter_end")
OPENING_BLOCKS = [*OPENINGS, "capital_of", "capital_of"]  # a fact is learned by repetition
FRIENDS = (
    "{His} best friend was {F_new} [called|named] {Fn}.",
    "{His} best friend, {Fn}, was {F_new} who [loved {any_food}|talked a lot|lived next door|was never in a hurry].",
    "{H} [did everything|went everywhere|shared everything] with {Fn}, {F_new}.",
    "Next door lived {F_new} called {Fn}, and the two were [good|the best of] friends.",
    "{H} had a friend called {Fn}, {F_new} who [laughed a lot|knew every path|could {skill}|was good at keeping secrets].",
    "{F_new_cap} called {Fn} was {his} best friend.",
    "With {him} was {Fn}, {F_new}[| who always had {any_food} in {fhis} pocket].",
)
SETTINGS = (
    "It was a {weather} {day}.",
    "The air smelled of {smell}.",
    "What {he} liked best was [{any_food}|a good story|sitting by the {any_place}|the smell of {smell}].",
    "{He} could {skill}, but {he} could not {skill2}.",
    "{H} always carried {a_any_thing} in {his} bag.",
)
FIRST_PERSON = {"1", "L"}
OBJECTS_BEFORE_I = re.compile(
    r"\b(to|for|at|with|from|of|near|behind|beside|towards|by|about|past|over|told|gave|asked|handed|showed|helped|"
    r"pulled|pushed|let|made|followed|watched|thanked|hugged|offered|brought|sent|led|took|met|taught|woke|passed|"
    r"around|under|between|into|beat|nudged|tugged|poked|invited|joined|reached|stopped|found|left|called|carried|"
    r"waved at|looked at|gave back) I\b(?! (?:was|had|could|would|did|must|might|ever|never|also|saw|said|were))"
)


@cache
def _plots() -> tuple[dict[str, tuple[str, ...]], tuple]:  # type: ignore[type-arg]
    """Return (endings and links, plots) of both plot files."""
    plain: dict[str, tuple[str, ...]] = {}
    plots = []
    for name in ("plots_everyday.txt", "plots_tales.txt"):
        some, texts = read_plots(name)
        plots += list(some.values())
        for title, lines in texts.items():
            plain[title] = plain.get(title, ()) + lines
    return plain, tuple(plots)


def _character(
    teller: Teller, key: str, female: bool, taken: set[str], name: str = "", kind: str = ""
) -> None:
    """Draw a character, and store its names, kind and pronouns under `key` ("H", "F" or "E")."""
    state, prefix = teller.state, {"H": "", "F": "f", "E": "e"}[key]
    while not name or name in taken:
        name = teller.zipf(words.GIRLS if female else words.BOYS)
    kinds = words.JOBS if key == "E" or teller.random() < 0.1 else words.KINDS
    while not kind or kind in taken:
        young = key != "E" and teller.random() < 0.5
        kind = ("girl" if female else "boy") if young else teller.zipf(kinds)
    taken.update((name, kind))
    trait = teller.zipf(words.TRAITS)
    look = trait if teller.random() < 0.5 else teller.pick(("little", "young", "small", "big", "old"))
    if kind in ("girl", "boy") and look == "old":
        look = "young"
    he, him, his = ("she", "her", "her") if female else ("he", "him", "his")
    state.update(
        {
            key: (name, name, name, f"the {kind}"),
            f"{key}n": name,
            f"{key}s": f"{name}'s",
            f"{key}_new": f"a {look} {kind}",
            f"{prefix}he": he,
            f"{prefix}him": him,
            f"{prefix}his": his,
            f"{prefix}himself": him + "self",
        }
    )
    if key == "H":
        state.update(kind=kind, trait=trait)
    if key == "E":
        introduction = f"a {look} {kind} {teller.pick(('named', 'called'))} {name}"
        _stranger(teller, introduction, state)


def _stranger(teller: Teller, introduction: str, state: dict) -> None:  # type: ignore[type-arg]
    """Let any slot of the elder give the introduction first, and the name or pronoun from then on."""
    known = {slot: state[slot] for slot in ("E", "Es", "ehe", "ehim")}

    def meet(slot: str, suffix: str = ""):  # type: ignore[no-untyped-def]
        def filling() -> str:
            state.update(known)
            state["E_new"] = known["E"]
            return introduction + suffix

        return filling

    state.update(E_new=meet("E_new"), E=meet("E"), Es=meet("Es", "'s"), ehe=meet("ehe"), ehim=meet("ehim"))


def _thing(teller: Teller, key: str) -> None:
    """Draw an object with adjectives that stay with it; `key_` is its bare noun."""
    noun, form = teller.zipf(words.OBJECTS), teller.random()
    adjectives = [teller.zipf(words.LOOKS)] if form < 0.6 else []
    adjectives += [teller.zipf(words.COLOURS)] if form > 0.4 else []
    full = " ".join([*adjectives, noun])
    teller.state.update({key: full, f"{key}_": noun, f"a_{key}": f"a {full}"})


def _capitals(teller: Teller) -> None:
    """Give the slots that begin a sentence their large letter: {He} is {he}, {fHis} is {fhis}."""
    for slot in ("He", "His", "They", "Their", "Them", "fHe", "fHis", "eHe", "eHis", "Noun", "Topic", "Food"):
        teller.state[slot] = partial(_capital, teller, slot[0].lower() + slot[1:].lower())


def _capital(teller: Teller, slot: str) -> str:
    text = teller.filling(slot)
    return text[0].upper() + text[1:]


def begin_plot(teller: Teller, taken: set[str], plot: int) -> None:
    """Draw everything that stays the same within one plot."""
    *_, stranger = casts()[plot].names
    *_, job = casts()[plot].kinds
    state = teller.state
    for name, entries in BOUND.items():
        while (
            (value := teller.zipf(entries)) == state.get(name.rstrip("2")) or value in taken or value == job
        ):
            pass
        state[name] = value
    _character(teller, "E", stranger in words.GIRLS, taken, stranger, job)
    _thing(teller, "thing")
    while True:
        _thing(teller, "thing2")
        if state["thing2_"] != state["thing_"]:
            break


class Cast(NamedTuple):
    """Hero, friend and stranger of a plot. They belong to it, so that a small model can remember them."""

    names: tuple[str, str, str]
    kinds: tuple[str, str, str]


@cache
def casts() -> tuple[Cast, ...]:
    """Return the cast of each plot: every hero has another name; hero and friend are a girl and a boy."""
    rng = random.Random(0)
    girls, boys = (rng.sample(names, len(names)) for names in (words.GIRLS, words.BOYS))
    found = []
    for number in range(len(_plots()[1])):
        pair = [
            (names[number], child if rng.random() < 0.5 else rng.choice(words.KINDS))
            for names, child in ((girls, "girl"), (boys, "boy"))
        ]
        rng.shuffle(pair)
        (hero, kind), (friend, friend_kind) = pair
        stranger = rng.choice((girls, boys))[number - 1]
        found.append(Cast((hero, friend, stranger), (kind, friend_kind, rng.choice(words.JOBS))))
    return tuple(found)


def _choose_plot(rng: random.Random, fixed: dict[str, str]) -> int:
    """Draw a plot, the one with the hero who was asked for if there is one."""
    heroes = [cast.names[0] for cast in casts()]
    return heroes.index(fixed["Hn"]) if fixed.get("Hn") in heroes else rng.randrange(len(heroes))


def _world(teller: Teller, first_person: bool, taken: set[str], fixed: dict[str, str], plot: int) -> None:
    state = teller.state
    (hero, friend, _), (kind, friend_kind, _) = casts()[plot]
    hero = fixed.get("Hn", hero)
    female = hero in words.GIRLS
    state.update({slot: lambda entries=entries: teller.zipf(entries) for slot, entries in FRESH.items()})
    state.update({slot: teller.pick(entries) for slot, entries in WORLD.items()})
    state.update(SHORTHAND)
    state["country"], state["capital"] = teller.zipf(CAPITALS)
    state["year"] = str(1700 + int(400 * teller.random()))
    state["number"] = str(int(10 ** (1 + 3 * teller.random())))
    _character(teller, "H", female, taken, hero, fixed.get("kind", kind))
    _character(teller, "F", friend in words.GIRLS, taken, friend, friend_kind)
    while (other := teller.pick(casts()).names[0]) in taken:
        pass
    state["name2"] = other
    state.update(TOLD if first_person else NARRATED)
    state["F_new_cap"] = state["F_new"]
    state.update(fixed)
    _capitals(teller)


def ask_world(teller: Teller) -> None:
    """Fill the slots that a conversation may use; they keep their values."""
    _world(teller, False, set(), {}, teller.pick(range(len(casts()))))
    for slot in ("num",):
        teller.state[slot] = teller.filling(slot)
    for slot in ("animal", "food", "colour"):
        teller.state[slot] = teller.zipf(BOUND[slot])


def _opening(rng: random.Random, fixed: dict[str, str]) -> tuple[str, str]:
    """Draw a kind of opening and one of its templates; return (mark, template): mark "1" first person, "L" letter.

    A story that was asked for must speak of what was asked: only templates with its slots are drawn.
    """
    wanted = [slot for slot in fixed if slot in WORLD]
    while True:
        template = rng.choice(OPENINGS[rng.choice(OPENING_BLOCKS)])
        mark, _, rest = template.partition(" ")
        if wanted and not uses(template, wanted):
            continue
        if mark not in FIRST_PERSON:
            return "", template.removeprefix("3 ")
        if not fixed:
            return mark, rest


def _plot(teller: Teller, plot: tuple) -> list[str]:  # type: ignore[type-arg]
    """Tell the beats of a plot in order, broken into paragraphs."""
    paragraphs: list[list[str]] = [[]]
    for beat in plot:
        if beat.optional and teller.random() < 0.5:
            continue
        if paragraphs[-1] and teller.random() < 0.6:
            paragraphs.append([])
        paragraphs[-1].append(teller.tell(teller.fresh(beat.ways)))
    return [" ".join(lines) for lines in paragraphs]


ARTICLE = re.compile(r"\b([Aa]) (?=[aei]|o(?!ne\b)|u(?!ni|se)|hono|hone|hour)")
DOUBLE_AN = re.compile(r"\b([Aa])n (?=[bcdfgj-np-tvwxyz])")
SENTENCE_START = re.compile(r"(?:^\"?|(?<=[.!?] )|(?<=\.\" )|(?<=[:.!?] \"))[a-z]", re.M)
SAYS = r"(?:said|asked|called|whispered|answered|laughed|cried|murmured|shouted|wondered)"
THE_AFTER_QUOTE = re.compile(rf"(?<=[!?]\" )the (?![a-z ]+? {SAYS}\b)")


def polish(text: str) -> str:
    """Return the text with capital letters at sentence starts, `a` or `an` by the next word, and `I` in its case."""
    text = (
        re.sub(r"\bI and ([A-Z]\w+|the \w+)", r"\1 and I", text)
        .replace("I's ", "my ")
        .replace(" tree tree", " tree")
    )
    text = re.sub(r"\b(\w+ly|old|hundred|little) \1\b", r"\1", text)
    text = OBJECTS_BEFORE_I.sub(r"\1 me", text)
    text = ARTICLE.sub(r"\1n ", DOUBLE_AN.sub(r"\1 ", text))
    text = THE_AFTER_QUOTE.sub("The ", text)
    return SENTENCE_START.sub(lambda match: match[0].upper(), text)


def story(rng: random.Random, **fixed: str) -> str:
    """Return one story.

    `fixed` sets slots of the world: `Hn="Nina"` the hero's name, `kind="fox"`, `noun="engine"` what it begins with.
    """
    teller = Teller(rng)
    taken: set[str] = set()
    mark, opening = _opening(rng, fixed)
    plot = _choose_plot(rng, fixed)
    _world(teller, mark in FIRST_PERSON, taken, fixed, plot)
    begin_plot(teller, taken, plot)
    lines = [teller.tell(opening).replace(" \\n", "\n").replace("\\n", "\n")]
    if not uses(opening, ("Fn", "F", "F_new")):
        lines.append(teller.tell(teller.fresh(FRIENDS)))
    if teller.random() < 0.35:
        lines.append(teller.tell(teller.fresh(SETTINGS)))
    return polish("\n\n".join([" ".join(lines), *_body(teller, plot), _ending(teller, mark)]))


def _body(teller: Teller, plot: int) -> list[str]:
    """Tell the plot, in paragraphs."""
    return _plot(teller, _plots()[1][plot])


def _ending(teller: Teller, mark: str) -> str:
    endings = _plots()[0]["ENDINGS"]
    return teller.tell(teller.pick(LETTER_ENDS if mark == "L" else endings)).replace("\\n", "\n")


def continuation(rng: random.Random, first: str) -> str:
    """Return a story that goes on from `first`, any sentence of any text."""
    teller = Teller(rng)
    taken: set[str] = set()
    template = rng.choice(read_lines_of_bridges())
    told = template.startswith("1 ")
    plot = _choose_plot(rng, {})
    _world(teller, told, taken, {}, plot)
    begin_plot(teller, taken, plot)
    lines = [first, teller.tell(template.removeprefix("1 ").removeprefix("3 "))]
    if not uses(template, ("Fn", "F", "F_new")):
        lines.append(teller.tell(teller.fresh(FRIENDS)))
    return polish("\n\n".join([" ".join(lines), *_body(teller, plot), _ending(teller, "")]))


@cache
def read_lines_of_bridges() -> tuple[str, ...]:
    return tuple(read_lines("bridges.txt"))


def stories(seed: int) -> Iterator[str]:
    """Yield different stories forever; the seed decides all of them."""
    rng = random.Random(seed)
    seen: set[int] = set()
    while True:
        text = story(rng)
        if hash(text) not in seen:
            seen.add(hash(text))
            yield text


def main() -> None:
    parser = argparse.ArgumentParser(description="Print sample stories.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()
    for text in itertools.islice(stories(options.seed), options.count):
        print(text, end="\n\n" + "-" * 40 + "\n\n")


if __name__ == "__main__":
    main()
