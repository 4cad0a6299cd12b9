"""The habits of STYLE are found in every kind of prose, and the project's prose has few of them."""

from pathlib import Path

import pytest

from tools import style
from tools.style import ROOT, Prose, hits, markdown, passages

PASS = [
    "Return the blocks that no sequence holds.",
    "What does a decode step cost?",
    "Where does the time go? Measure it on this machine.",
    "The scheduler admits a waiting request when its blocks fit the budget.",
    "A finished request keeps computing as padding.",
    "It needs 4 bytes per token and 12 calls per step.",
    "Each layer reads 0.4 ms of weights at every step.",
    "KV stands for key and value.",
    "On GitHub an SVG stands in for the player.",
    "One request stands out: it waits for 40 steps.",
    "The reader understands a step from its trace.",
    "A block is a token's place in the cache.",
    "The allocator returns what the caller asked for, and where it is.",
    "Tell the user who sent the request.",
    "An amendment to the contract is needed.",
    "The cache keeps the block next to its copy, and besides that a count.",
    "Fix the allocator first; the tests run alternately.",
    "`Whatever()` is the name of a function.",
    "This takes 3 seconds. Run it again with one token.",
    "The table holds two numbers: a row and a column.",
]
FAIL = [
    "What is not published is computed again.",
    "Who has finished makes room at once.",
    "Whoever holds the lock writes the file.",
    "Where a part has no keys, its weight is 0.",
    "Whatever the learner prints is shown.",
    "The pool is full. What cannot be had changes nothing.",
    "- Where nothing fits, the request waits.",
    "| budget | What one step may compute |",
    "Two cases. **Where** the prefix is known, its blocks are shared.",
    "A block that nobody holds is free.",
    "It reads somebody else's memory.",
    "Begin the chapter anew.",
    "The new file lies beside the old one.",
    "The sides are measured by turns.",
    "It waits for want of memory.",
    "The loop runs for ever.",
    "One late token is dearer than an early one, and the test is mended.",
    "The answer stands between two markers.",
    "Decoding costs 0.4 ms a token.",
    "The cache takes 320 bytes a layer, with 3 a head.",
]


def group(path: Path) -> str:
    """The group in which a file is counted: the documents, a top folder, or a room of the package."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[: 2 if parts[0] == "minillm" else 1]) if len(parts) > 1 else "documents"


GROUPS: dict[str, list[Path]] = {}
for file in style.our_files():
    GROUPS.setdefault(group(file), []).append(file)


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_the_prose_has_few_habits(name: str) -> None:
    prose = [(path, passages(path)) for path in GROUPS[name]]
    found = [
        f"{path.relative_to(ROOT)}:{hit.line}: {hit.words}" for path, text in prose for hit in hits(text)
    ]
    words = sum(style.num_words(text) for _, text in prose)
    assert len(found) <= style.RATE * words, "\n".join(found)


@pytest.mark.parametrize("sentence", PASS)
def test_plain_english_passes(sentence: str) -> None:
    assert hits([Prose(1, markdown(sentence))]) == []


@pytest.mark.parametrize("sentence", FAIL)
def test_each_habit_is_found(sentence: str) -> None:
    assert hits([Prose(1, markdown(sentence))])


def test_forty_sentences() -> None:
    assert len(set(PASS)) == len(set(FAIL)) == 20


@pytest.mark.parametrize(
    "text",
    [
        "# What a block is\n\nA room for 16 tokens.",
        "| What | Where |\n|---|---|\n| a block | memory |",
        "```\nWho stands beside nobody\n```",
        "Call `stands()` and [`beside`](beside/anew.md).",
        "<!-- Nobody sees this. -->",
        "A line that goes on with\nWhat the caller named.",
    ],
)
def test_headings_code_and_targets_are_left_out(text: str) -> None:
    assert hits([Prose(1, markdown(text))]) == []


def found_in(path: Path, text: str) -> list[int]:
    path.write_text(text)
    return [hit.line for hit in hits(passages(path))]


def test_python_is_read_where_people_read_it(tmp_path: Path) -> None:
    text = '''"""What this is.

Nobody knows.
"""
x = 1  # Where x is kept
# A comment that goes on
# anew.
def nobody(stands):
    """Return x."""
    raise ValueError(f"{x} bytes a token: nobody has these")
print("stands", beside, "not a message", "a message that stands here")
'''
    assert sorted(found_in(tmp_path / "a.py", text)) == [1, 3, 5, 7, 10, 10, 11]


def test_in_a_test_strings_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    assert found_in(tmp_path / "tests" / "a.py", '"""Nobody."""\nx = "nobody reads this string"\n') == []
    assert found_in(tmp_path / "tests" / "b.py", '"""Nobody reads this."""\n') == [1]


def test_a_notebook_is_read_cell_by_cell(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# What\n", "\n", "It stands here."]},
        {"cell_type": "code", "source": "%matplotlib inline\nprint(f'{n} tokens a step')  # anew"},
    ]
    path = tmp_path / "a.ipynb"
    style.nb.write(path, {"cells": cells, "metadata": {}, "nbformat": 4})
    assert len(hits(passages(path))) == 3
    assert style.main([str(path)]) == 1


def test_a_makefile_is_read_by_its_comments_and_messages(tmp_path: Path) -> None:
    text = "# It stands here.\nall:\n\tbeside anew\n\t@echo 'nobody'\n"
    assert sorted(found_in(tmp_path / "Makefile", text)) == [1, 4]
