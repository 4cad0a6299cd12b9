"""Any ordinary English opening goes on as a story: what can be checked of it without reading."""

import re

import pytest

from minillm import LLM, SamplingParams
from minillm.llm import BUNDLED
from tools.tinytales import words

OPENINGS = (
    "Once upon a time",
    "Hello, my name is",
    "The capital of France is",
    "Dear Grandma,",
    "Why is the sky blue?",
    "Rain",
    "The president said",
    "My favourite food is",
    "In 1969,",
    "It was raining when",
    "To make a good soup, you need",
    "I have never told anyone, but",
    "Yesterday my bicycle",
    "Quantum computers",
    "If I could fly,",
    "She opened the door and",
    "Mathematics is",
    "Two plus two is",
    "The old dog",
    "Let me tell you about",
)
SEEDS = {0.0: 1, 0.8: 3}  # temperature -> samples of each opening
CODE = re.compile(r"def \w+\(|import \w+|\bself\.|->|==|[{}<>_\\|#`]|\bTrue\b|\bNone\b|http")
NAMES = set(words.GIRLS + words.BOYS)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stories() -> list[tuple[str, float, str]]:
    """(opening, temperature, the whole text) of every sample, each ended by the model or after 300 tokens."""
    with LLM("tinytales", max_num_seqs=20) as llm:
        return [
            (output.prompt or "", temperature, f"{output.prompt}{completion.text}")
            for temperature, number in SEEDS.items()
            for output in llm.generate(
                list(OPENINGS), SamplingParams(temperature=temperature, n=number, max_tokens=300, seed=7)
            )
            for completion in output.outputs
        ]


def test_there_is_no_code_and_no_markup(stories: list[tuple[str, float, str]]) -> None:
    for opening, temperature, text in stories:
        found = CODE.search(text)
        assert found is None, f"{opening!r} at {temperature}: {found[0]!r} in {text!r}"


def test_every_one_becomes_a_text_of_sentences(stories: list[tuple[str, float, str]]) -> None:
    for opening, temperature, text in stories:
        assert len(text) > 300, f"{opening!r} at {temperature} ends after {text!r}"
        sentences = re.split(r"(?<=[.!?])\"? +|\n+", text)
        assert len(sentences) >= 5 and max(map(len, sentences)) < 500, text


def test_quotations_are_closed(stories: list[tuple[str, float, str]]) -> None:
    """In every paragraph but the last, which may be cut off. At temperature 0.8 one in twenty may slip."""
    for temperature in SEEDS:
        whole = [p for _, t, text in stories if t == temperature for p in text.split("\n\n")[:-1]]
        open_ones = [paragraph for paragraph in whole if paragraph.count('"') % 2]
        assert len(open_ones) <= len(whole) / 20, open_ones


def test_the_words_are_those_of_stories(stories: list[tuple[str, float, str]]) -> None:
    texts = [
        (BUNDLED / "heldout" / f"{name}.txt").read_text(encoding="utf-8")
        for name in ("stories", "tales", "calibration")
    ]
    known = set(re.findall(r"[a-z]+", " ".join(texts).lower()))
    for temperature, least in ((0.0, 0.97), (0.8, 0.93)):
        said = [w for _, t, text in stories if t == temperature for w in re.findall(r"[a-z]+", text.lower())]
        share = sum(word in known for word in said) / len(said)
        assert share > least, f"{share:.3f} at temperature {temperature}"


def test_names_stay(stories: list[tuple[str, float, str]]) -> None:
    """One of the few people in a story is named again and again. Names drawn by chance would hardly come twice."""
    for temperature, least in ((0.0, 0.95), (0.8, 0.75)):
        found = [re.findall(r"[A-Z][a-z]+", text) for _, t, text in stories if t == temperature]
        again = [any(all_words.count(name) >= 3 for name in NAMES & set(all_words)) for all_words in found]
        assert sum(again) >= least * len(again), f"{sum(again)} of {len(again)} at temperature {temperature}"


def test_greedy_text_does_not_run_in_circles(stories: list[tuple[str, float, str]]) -> None:
    for opening, _, text in stories:
        sentences = [s for s in re.split(r"(?<=[.!?]) ", text) if len(s) > 20]
        assert len(set(sentences)) >= 0.8 * len(sentences), f"{opening!r} repeats itself: {text!r}"


def test_it_answers_in_character() -> None:
    questions = [
        "Who are you?",
        "Tell me a story about Hetty.",
        "What is the capital of France?",
        "Thank you!",
        "Good night",
    ]
    with LLM("tinytales", max_num_seqs=8) as llm:
        talks = [[{"role": "user", "content": question}] for question in questions]
        answers = llm.chat(talks, SamplingParams(temperature=0, max_tokens=200))
        texts = [answer.outputs[0].text for answer in answers]
    assert all(answer.outputs[0].finish_reason == "stop" for answer in (answers[0], *answers[2:])), texts
    assert texts[1].count("Hetty") >= 3 and len(texts[1]) > 300, texts[1]
    assert "Paris" in texts[2], texts[2]
