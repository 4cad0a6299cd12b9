"""An endless book of small stories: a grammar with a memory.

A story is a world (who, where, what weather), an opening, one to four episodes from `plots`, and an ending. Sentences
are templates: `[a|b]` chooses a variant, `{slot}` is filled from the world first (so names, pronouns and things stay
the same all through an episode) and from the rules or word tables second (fresh each time, early words most often).
"""

import argparse
import hashlib
import itertools
import random
import re
from collections.abc import Iterator
from functools import cache

from . import words
from .plots import PLOTS

FLATNESS = 12.0  # larger: rarer words come up more often
LINKS = (
    "Then",
    "And",
    "So",
    "But",
    "After a while",
    "Soon",
    "And then",
    "Well,",
    "Of course",
    "Now",
    "Later",
    "Suddenly,",
    "In the end",
    "Perhaps by luck,",
    "To be honest,",
    "For once,",
    "This time,",
    "A moment later",
    "Without a word,",
    "Luckily,",
    "Strangely,",
    "As always,",
    "Before long",
    "At that very moment,",
)
LINKABLE = re.compile(r"(?:the|The|They|He|She|It|Nobody|Somebody|Everybody)\b")
Part = str | tuple[str, object]  # literal text, ("slot", name) or ("choice", list of part lists)
Beat = tuple[str, tuple[str, ...]]  # the mark after the dash, and the ways to tell it

TABLES: dict[str, tuple[str, ...]] = {
    "any_object": words.OBJECTS,
    "any_food": words.FOODS,
    "any_animal": words.ANIMALS,
    "look": words.LOOKS,
    "colour": words.COLOURS,
    "smell": words.SMELLS,
    "smell2": words.SMELLS,
    "how": words.HOW,
    "moved": words.MOVED,
    "did": words.DID,
    "sound": words.SOUNDS,
    "said": words.SAID,
    "good": words.GOOD,
    "bad": words.BAD,
    "simile": words.SIMILES,
    "time": words.TIMES,
    "day": words.DAYS,
    "num": words.NUMBERS,
    "body": words.BODY,
    "town": words.TOWNS,
    "any_place": words.PLACES,
    "any_tree": words.TREES,
    "any_job": words.JOBS,
}
BOUND: dict[str, tuple[str, ...]] = {  # drawn once per episode
    "food": words.FOODS,
    "food2": words.FOODS,
    "animal": words.ANIMALS,
    "place": words.PLACES,
    "place2": words.PLACES,
    "skill": words.SKILLS,
    "skill2": words.SKILLS,
    "fear": words.FEARS,
    "fear2": words.FEARS,
    "wish": words.WISHES,
    "build": words.BUILDS,
    "material": words.MATERIALS,
    "material2": words.MATERIALS,
    "work": words.WORK,
    "work2": words.WORK,
    "flowers": words.FLOWERS,
    "tree": words.TREES,
    "job": words.JOBS,
    "job2": words.JOBS,
    "kind2": words.KINDS,
}
RULES_TEXT = """
= a_any_thing
a {any_object}
a {look} {any_object}
a {colour} {any_object}
an old {any_object}
= a_any_animal
a {any_animal}
a {any_animal}
a {look} {any_animal}
= A_any_thing
A {any_object}
A {look} {any_object}
= A_any_animal
A {any_animal}
A {colour} {any_animal}
= a_food_thing
some old {any_food}
a {any_object}
= any_dish
pie
loaf of bread
bowl of soup
cabbage
pumpkin
= Time
{time}
one {day}
{time}
a few days later
the {day} after that
one {look} {day}
it was {time} that it happened:
now,
as it happened,
not long after
= food_or
[potatoes|apples|carrots|beans|eggs|onions|nuts|turnips]
= It_looked
It looked at {H} through the bars.
It did not even complain.
= num_cap
Five
Seven
Ten
Twelve
Twenty
= tagH
{say} {H}
{say} {H}[| {how}]
{he} {say}
{he} {say}, and {did}
said {H} as {he} {did}
= tagF
{say} {F}
{say} {F}[| {how}]
{say} {F}, who {did}
{say} {F} {how}
= tagE
{say} {E}
{say} {E}[| {how}]
{ehe} {say}
= tagE_new
said {E_new}
answered {E_new}
= say
said
{said}
= askH
asked {H}
{H} asked[| {how}]
{he} asked
wondered {H}
cried {H}
= askF
asked {F}
{F} asked[| {how}]
wondered {F} aloud
= askE
asked {E}
{E} asked[| {how}]
{ehe} asked
= feelbad
{H} felt {bad}.
{H} was {bad}[| and a little {bad}], and {his} {body} felt [strange|heavy|cold].
{He} was so {bad} that {he} [forgot to eat|could not speak|did not hear the {any_animal}].
[Poor {H}!|Oh dear.|What now?] {He} [sighed|swallowed|looked away] and felt {bad}.
{H}'s {body} hurt a little, as it does when one is {bad}.
Something in {him} became small and {bad}.
= filler
{sense}
{sense}
{sense}
{feel}
{talk}
{talk}
{aside}
= sense
The air smelled of {smell}[| and {smell2}].
Somewhere [far off|near the {any_place}|behind them|in the {any_tree}] a {any_animal} {sound}.
A {look} {any_animal} [sat|rested|slept|waited] [on the wall|by the {any_place}|under the {any_tree}] and {sound} {simile}.
The [wind|air|light|grass|sky] [was|felt|seemed] [soft|cold|warm|strange|still|sharp] [that {day}|for a while|again].
[Clouds|Shadows|Leaves] [moved|drifted|danced] over the {any_place} {simile}.
From the {any_place} came [the smell|a breath] of {smell}.
A {any_animal} {moved} past, {simile}, and was gone.
One could hear [the {any_place}|a clock|the {any_job}|water|a door], and then nothing.
The sun [stood over|shone on|slid behind|warmed] the {any_place}.
= feel
{H} felt {good}, and a little {bad} too.
{H} {did} and felt {good}.
{F} {did}. {fHe} was {good}[|, more or less].
{F} seemed {bad}, but {fhe} [said nothing|{did}|only {did}].
It made {H} {good} just to [think of it|look at {F}|be there].
{H}'s {body} [tingled|itched|felt warm], as always when {he} was {good}.
= talk
"[Are you {bad}|Do you hear that|What is that smell|Is it far]?" {askF}. "[Only a little|It is nothing|{smell_cap}, I think|Not very]," {tagH}.
"[Wait|Look|Listen|Hush]!" {tagF}. A {any_animal} {sound} [near|behind|beyond] the {any_place}.
"I [could eat|would like|dream of] {any_food} now," {tagF}. "You always {say_food}," {tagH}.
"My grandmother [used to say|said|knew] that [a {any_animal} brings luck|{any_food} can help|one must never hurry a {any_animal}]," {tagF}.
"[Do you think so|Are you sure|Really]?" {askH}. {F} {did}.
"I am {bad}," {tagH}. "So am I," {tagF}, "but [not very|not alone|it will pass|I have {any_food}]."
"If only we had {a_any_thing}!" {tagF}. "Or {a_any_animal}," {tagH}.
{H} {did}. "[That is what friends are for|We shall see|One thing after another|I knew it]," {he} said{howly}.
= say_food
want {any_food}
think of {any_food}
talk about food
= howly
 {how}

 to nobody in particular
 and {did}
= aside
([Nobody knows why|That is another story|You would have done the same|It is true, ask the {any_job}].)
[As everybody knows,|People say that|The {any_job} says that] {any_food} and {any_food} do not go well with each other.
[As everybody knows,|People say that] [a {any_animal} is never late|the {any_place} is older than the {any_place}].
{H} [thought of|remembered] {a_any_thing} that {he} had [once had|seen in the {any_place}|lost long ago], {how} and for no reason.
Once, long before, {E_any} had [lived|danced|fallen asleep|sold {any_food}] there.
It was one of those days when [everything smells of {smell}|every {any_animal} seems to know your name|nothing goes as planned].
A {any_job} went by with {a_any_thing} and {a_any_thing}, [whistling|deep in thought|in a great hurry].
= E_any
a {any_job}
a {look} {any_job}
a king
= smell_cap
Smoke
Rain
Soup
Cheese
= opening
Once upon a time[,|] {live}
Once upon a time there was {H_new} [called|named] {Hn}, and {he} lived in {town}.
Once upon a time, in {town}, there lived {H_new} [called|whose name was] {Hn}.
Once upon a time there were two friends, {Hn} and {Fn}. {Hn} was {H_new}, and {Fn} was {F_new}.
One day, {H_new} [called|named] {Hn} [woke up early|went for a walk|sat by the {any_place}|was on the way to the {any_place}].
In {town} lived {H_new} [named|called] {Hn}.
There was once {H_new} [called|named] {Hn} who [loved {any_food}|lived near the {any_place}|could not sit still|had {a_any_thing}].
Long ago, [when {any_food} still grew on trees|before there were clocks|when the {any_place} was new], {H_new} [named|called] {Hn} lived in {town}.
It was a {weather} {day} when {Hn}, {H_new}, [opened the door|looked out of the window|came to the {any_place}].
{Hn} was {H_new}. {He} lived in {town}[| with {a_any_animal}| and liked {any_food}].
"[Wake up|Good morning|Come quickly|Guess what], {Hn}!" {Hn}, who was {H_new}, [opened one eye|rubbed {his} eyes|jumped up].
Do you know {Hn}? {He} is the {kind} who lives in {town}. This is what happened one {day}.
This is the story of {Hn}, {H_new} who lived in {town}.
Not far from the {any_place}, in {town}, lived {H_new}. {His} name was {Hn}.
On a {weather} {day}, {Hn} sat [by|near|behind] the {any_place} and ate {any_food}. {Hn} was {H_new}.
Everyone in {townshort} knew {Hn}, {H_new} who always carried {a_any_thing}.
= townshort
the village
the town
the valley
= live
{H_new} [called|named] {Hn} lived in {town}.
{H_new} [called|named] {Hn} had {a_any_thing} and a friend.
= friend
{His} best friend was {F_new} [called|named] {Fn}.
{He} had a friend, {Fn}, {F_new} who [loved {any_food}|talked a lot|was afraid of nothing but {any_animal}s|lived next door].
{Hn} [did everything|shared everything|walked to the {any_place} each day] with {Fn}, {F_new}.
With {him} was {Fn}, {F_new}.
Next door lived {F_new}, {Fn} by name, and the two were [as close as two peas|hardly ever apart|good friends].
= setting
The weather was {weather}, and the {any_place} smelled of {smell}.
{Hn} was {trait}, [as everybody knew|and sometimes too {trait}|and {Fn} liked that about {him}].
It was a {weather} {day}, just right for [doing nothing|{any_food}|an adventure|staying in bed].
In summer they [swam|played] at the {any_place}, and in winter they ate {any_food} by the fire.
What {he} liked best was [{any_food}|the smell of {smell}|the {any_place} in the rain|a good story].
= bridge
But that was not all.
[A few days|A week|A month|Not long] after that, something else happened.
The next adventure was [not long in coming|waiting at the {any_place}].
You might think that the story ends here, but it does not.
[Winter came|Summer came|The leaves fell|The swallows returned]. {H} and {F} had grown a little[| taller].
After that it was quiet for {num} days. Then it was not.
= ending
And so {H} and {F} went home, [tired|hungry|muddy] and {good}.
That night {H} lay in bed, listened to [the rain|the wind|a {any_animal}], and felt {good}.
And if they have not [moved away|stopped], they still [eat {any_food}|sit at the {any_place}] together {time}.
They all lived happily, [with {any_food} on Sundays|and hardly ever quarrelled|most of the time].
"[Good night|Sleep well|Until tomorrow], {Fn}," {tagH}. "Good night, {Hn}," {tagF}. The moon shone {how}.
{H} learned that [a friend is better than {a_any_thing}|one may be {bad} and {good} at once|small steps go far|kindness comes back|it helps to ask].
The end.
And that is how {H} became known at the {any_place} as "the {trait} {kind}".
{F} told the story for years, and each time the {any_animal} in it was bigger.
Then the stars came out over {townshort}, and the day was over.
What happened after that? [Nobody knows|Ask the {any_job}|Oh, lots of things], but that is another story.
{H} kept the {keepsake} all {his} life. When it was {weather}, {he} took it out and {did}.
And the {keepsake}? It [hangs|stands|lies] in the {any_place} to this day.
On the way home {H} held {F}'s hand and {did}. It had been a good {day}.
"Tomorrow," {tagF}, "we will do nothing at all." But of course they did.
It is good to be {trait}, thought {H}. But it is better to be [two|together|home].
"""


def parse_rules(text: str) -> dict[str, tuple[str, ...]]:
    """Read `= name` blocks into a rule table."""
    blocks = (block.split("\n", 1) for block in text.strip().removeprefix("= ").split("\n= "))
    return {name: tuple(body.split("\n")) for name, body in blocks}


def parse_plots(text: str) -> tuple[tuple[Beat, ...], ...]:
    """Read `# name` blocks into plots, each a tuple of beats."""
    plots = []
    for block in text.strip().split("# ")[1:]:
        beats = block.strip().split("\n-")[1:]
        parsed = (beat.split("\n") for beat in beats)
        plots.append(tuple((mark, tuple(lines)) for mark, *lines in parsed))
    return tuple(plots)


RULES = parse_rules(RULES_TEXT)
STORY_PLOTS = parse_plots(PLOTS)
TOKEN = re.compile(r"[\[\]|]|\{\w+\}|[^\[\]|{}]+")


def parse_parts(tokens: list[str], position: int = 0) -> tuple[list[list[Part]], int]:
    """Parse variants up to the closing bracket; return them and the position behind it."""
    variants: list[list[Part]] = [[]]
    while position < len(tokens) and tokens[position] != "]":
        token = tokens[position]
        if token == "[":
            inner, position = parse_parts(tokens, position + 1)
            variants[-1].append(("choice", inner))
        elif token == "|":
            variants.append([])
        else:
            variants[-1].append(("slot", token[1:-1]) if token[0] == "{" else token)
        position += 1
    return variants, position


@cache
def compiled(template: str) -> list[Part]:
    return parse_parts(TOKEN.findall(template))[0][0]


class Teller:
    """Expands templates for one story; `state` is the world it remembers, `told` the sentences already used."""

    def __init__(self, rng: random.Random) -> None:
        self.random = rng.random
        self.state: dict[str, str | tuple[str, ...]] = {}
        self.told: set[str] = set()

    def zipf(self, entries: tuple[str, ...]) -> str:
        """Draw with probability falling like 1/(rank + FLATNESS), Zipf's law as amended by Mandelbrot."""
        return entries[int(FLATNESS * (1 + len(entries) / FLATNESS) ** self.random() - FLATNESS)]

    def pick(self, entries):
        return entries[int(len(entries) * self.random())]

    def fresh(self, entries: tuple[str, ...]) -> str:
        """Pick a template not yet told in this story, if a few tries find one."""
        for _ in range(4):
            template = self.pick(entries)
            if template not in self.told:
                break
        self.told.add(template)
        return template

    def expand(self, parts: list[Part], out: list[str]) -> None:
        for part in parts:
            if isinstance(part, str):
                out.append(part)
            elif part[0] == "choice":
                self.expand(self.pick(part[1]), out)
            else:
                self.fill(part[1], out)

    def fill(self, name: str, out: list[str]) -> None:
        if name in ("E", "En", "ehe") and not self.state["met"]:
            name = "E_new"  # whoever speaks unannounced is introduced on the spot
        value = self.state.get(name)
        if value is not None:
            out.append(value if isinstance(value, str) else self.pick(value))
            if name == "E_new":  # met once, known from then on
                self.state["E_new"] = self.state["E"]
                self.state["met"] = "yes"
        elif name in TABLES:
            out.append(self.zipf(TABLES[name]))
        else:
            self.expand(compiled(self.pick(RULES[name])), out)

    def sentence(self, template: str) -> str:
        out: list[str] = []
        self.expand(compiled(template), out)
        return "".join(out)

    def line(self, rule: str) -> str:
        """One sentence of a rule, avoiding templates that this story has used."""
        template = self.fresh(RULES[rule])
        while template[0] == "{" and template[1:-1] in RULES and template.endswith("}"):
            template = self.fresh(RULES[template[1:-1]])
        return self.sentence(template)


def add_character(teller: Teller, key: str, prefix: str, taken: set[str]) -> None:
    """Draw a character and store its names, kind and pronouns under `key` and `prefix`."""
    female = teller.random() < 0.5
    name, kind = "", ""
    while not name or name in taken:
        name = teller.zipf(words.GIRLS if female else words.BOYS)
    while not kind or kind in taken:
        kind = ("girl" if female else "boy") if teller.random() < 0.4 else teller.zipf(words.KINDS)
        if key == "E" or teller.random() < 0.08:
            kind = teller.zipf(words.JOBS)
    taken.update((name, kind))
    trait = teller.pick((words.TRAITS_BOLD, words.TRAITS_SHY))
    adjective = teller.zipf(trait)
    look = adjective if teller.random() < 0.5 else teller.pick(("little", "young", "small", "big", "old"))
    he, him, his = ("she", "her", "her") if female else ("he", "him", "his")
    teller.state.update(
        {
            key: (name, name, name, f"the {kind}"),
            f"{key}n": name,
            f"{key}_new": f"a {look} {kind}",
            f"{prefix}he": he,
            f"{prefix}him": him,
            f"{prefix}his": his,
            f"{prefix}himself": him + "self",
            f"{prefix}He": he.capitalize(),
            f"{prefix}His": his.capitalize(),
        }
    )
    if key == "E":
        teller.state["E_new"] = f"a {look} {kind} {teller.pick(('named', 'called'))} {name}"
        teller.state["met"] = ""
    if key == "H":
        teller.state.update(trait=adjective, kind=kind, bold="bold" if trait is words.TRAITS_BOLD else "shy")


def add_thing(teller: Teller, key: str) -> None:
    """Draw an object with adjectives that stay with it; `key_` is its bare noun."""
    noun = teller.zipf(words.OBJECTS)
    form = teller.random()
    adjectives = [teller.zipf(words.LOOKS)] if form < 0.6 else []
    adjectives += [teller.zipf(words.COLOURS)] if form > 0.4 else []
    full = " ".join([*adjectives, noun])
    teller.state.update({key: full, f"{key}_": noun, f"a_{key}": f"a {full}", f"a_{key}_cap": f"A {full}"})


def begin_episode(teller: Teller, taken: set[str]) -> None:
    """Bind everything that must stay the same within one episode."""
    state = teller.state
    for name, entries in BOUND.items():
        state[name] = teller.zipf(entries)
        if name.endswith("2"):
            while state[name] == state.get(name[:-1]):
                state[name] = teller.zipf(entries)
    while state["animal"] in taken:
        state["animal"] = teller.zipf(words.ANIMALS)
    while state["job"] in taken or state["job2"] in taken or state["job"] == state["job2"]:
        state["job"], state["job2"] = teller.zipf(words.JOBS), teller.zipf(words.JOBS)
    add_thing(teller, "thing")
    add_thing(teller, "thing2")
    state["riddle"], state["answer"] = teller.pick(words.RIDDLES).split("|")
    state["food_cap"] = state["food"].capitalize()
    state["job2he"], state["he_far"] = teller.pick(("he", "she")), state["Hn"]


def linked(teller: Teller, text: str) -> str:
    """Now and then tie a sentence to the one before it with a connective."""
    if teller.random() > 0.3 or not LINKABLE.match(text):
        return text
    return f"{teller.zipf(LINKS)} {text[0].lower()}{text[1:]}"


def episode(teller: Teller, plot: tuple[Beat, ...]) -> list[str]:
    """Tell the beats of a plot in order, with fillers between, broken into paragraphs."""
    paragraphs: list[list[str]] = [[]]
    for mark, ways in plot:
        if mark in ("bold", "shy") and (mark != teller.state["bold"] or teller.random() < 0.15):
            continue
        if mark == "?" and teller.random() < 0.5:
            continue
        if paragraphs[-1] and teller.random() < 0.45:
            paragraphs.append([])
        paragraphs[-1].append(linked(teller, teller.sentence(teller.fresh(ways))))
        while teller.random() < 0.36:
            paragraphs[-1].append(teller.line("filler"))
    return [" ".join(lines) for lines in paragraphs]


SENTENCE_START = re.compile(
    r"(?:^|(?<=\n)|(?<=[.!?] )|(?<=[.]\" )|(?<=: \")|(?<=\.\) )|(?<=[.?!] \")|(?<=\n\")|(?<=\())[a-z]"
)
ARTICLE = re.compile(r"\b([Aa]) (?=[aei]|o(?!ne\b)|u(?!ni|se)|hono|hone|hour)")
DOUBLE_AN = re.compile(r"\b([Aa])n (?=[bcdfgj-np-tvwxyz])")


SYNONYM = re.compile(r"\b(?:" + "|".join(words.SYNONYMS) + r")\b(?! of\b)")


def vary(text: str, rng: random.Random) -> str:
    """Swap common phrases for others that fit the same place, about half of the time."""

    def swap(match: re.Match[str]) -> str:
        options = words.SYNONYMS[match[0]]
        return options[int(len(options) * rng.random())]

    return SYNONYM.sub(swap, text)


def polish(text: str) -> str:
    """Capital letters at sentence starts, and `a` or `an` by the word that follows."""
    text = ARTICLE.sub(r"\1n ", DOUBLE_AN.sub(r"\1 ", text))
    return SENTENCE_START.sub(lambda match: match[0].upper(), text).replace(":,", ":").replace(",,", ",")


def story(rng: random.Random) -> str:
    """Tell one story: a world, an opening, one to four connected episodes, an ending."""
    teller = Teller(rng)
    taken: set[str] = set()
    teller.state["weather"] = teller.zipf(words.WEATHER)
    for key, prefix in (("H", ""), ("F", "f"), ("E", "e")):
        add_character(teller, key, prefix, taken)
    count = teller.pick((1, 1, 1, 1, 1, 2, 2, 2, 3, 4))
    opening = teller.sentence(teller.pick(RULES["opening"]))
    lines = (
        [opening] if "{Fn}" in opening or teller.state["Fn"] in opening else [opening, teller.line("friend")]
    )
    if teller.random() < 0.6:
        lines.append(teller.line("setting"))
    paragraphs = [" ".join(lines)]
    for number, plot in enumerate(rng.sample(STORY_PLOTS, count)):
        if number and teller.random() < 0.6:
            add_character(teller, "E", "e", taken)
        begin_episode(teller, taken)
        told = episode(teller, plot)
        if number and teller.random() < 0.7:
            told[0] = teller.line("bridge") + " " + told[0]
        paragraphs += told
        if teller.state["thing"] in " ".join(told):
            teller.state["keepsake"] = teller.state["thing_"]
    endings = tuple(way for way in RULES["ending"] if "keepsake" in teller.state or "keepsake" not in way)
    paragraphs.append(teller.sentence(teller.pick(endings)))
    return polish(vary("\n\n".join(paragraphs), rng))


def stories(seed: int) -> Iterator[str]:
    """Yield unique stories forever; the seed decides all of them."""
    rng = random.Random(seed)
    seen: set[bytes] = set()
    while True:
        text = story(rng)
        digest = hashlib.sha256(text.encode()).digest()
        if digest not in seen:
            seen.add(digest)
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
