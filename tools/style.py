"""Find the habits that make this project's English hard to read. CONTRIBUTING.md names them.

    python -m tools.style [FILE …]    print every habit found, in all files of the project by default

It reads the prose of a file: Markdown text, and in Python the docstrings, the comments and the messages. Headings and
code are left out. A program finds habits but not bad sentences, so read a text aloud as well.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minillm.course import notebook as nb

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "kernels", "minillm", "notebooks", "solutions", "tests", "tools")
RATE = 2 / 10_000  # habits per word that a group of files may have
SHORTEST_MESSAGE = 3  # words: shorter strings are names, keys and formats

# A sentence begins with the passage, a paragraph, a list item or a table's cell, or after another sentence.
_START = r"(?:\A|\n\s*\n|[.!?:|•][\"')]?\s)\s*[\"'(]?"
HABITS = {
    "a sentence begins with it and is no question": re.compile(
        _START + r"(?:What|Who|Whoever|Where|Whatever)\b(?![^.!?]*\?)"
    ),
    "a plainer word exists": re.compile(
        r"\b(?:whoever|nobody|somebody|anew|beside|by turns|for want of|for ever|of old|dearer|mend(?:s|ed)?)\b",
        re.IGNORECASE,
    ),
    '"stands" for "is"': re.compile(r"\bstands?\b(?! (?:for|in for|out)\b)", re.IGNORECASE),
    '"per" is plainer': re.compile(
        r"(?:\d|\b(?:ms|s|bytes|KiB|MB|calls?|times|tokens?)) a (?:request|layer|token|step|row|core|head|block)\b"
    ),
}


@dataclass(frozen=True)
class Prose:
    """A passage of a file: the line on which it begins, and its text."""

    line: int
    text: str


@dataclass(frozen=True)
class Hit:
    """One habit: where it is, what it is, and the words around it."""

    line: int
    habit: str
    words: str


def hits(passages: list[Prose]) -> list[Hit]:
    """Return every habit in the passages."""
    found = []
    for prose in passages:
        for habit, pattern in HABITS.items():
            for match in pattern.finditer(prose.text):
                words = prose.text[max(0, match.start() - 20) : match.end() + 40]
                line = prose.line + prose.text.count("\n", 0, match.end())
                found.append(Hit(line, habit, " ".join(words.split())))
    return found


def num_words(passages: list[Prose]) -> int:
    """Return the number of words in the passages."""
    return sum(len(prose.text.split()) for prose in passages)


def passages(path: Path) -> list[Prose]:
    """Return the prose of a Markdown file, a notebook, a Python file, a Makefile or a shell script."""
    if path.suffix == ".ipynb":
        return list(_notebook(path))
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [Prose(1, markdown(text))]
    if path.suffix == ".py":
        literals_are_data = path.resolve().is_relative_to(ROOT / "tests")
        return [*_comments(text), *_strings(ast.parse(text), docstrings_only=literals_are_data)]
    return [Prose(1, re.sub(r"^(?!\s*#|\s*@?echo ).*$", "", text, flags=re.MULTILINE))]


def markdown(text: str) -> str:
    """Return the prose of Markdown text, line by line: no headings, code, links' targets or HTML comments."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r"^ *(```|~~~).*?^ *\1[^\n]*$", blank, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", blank, text, flags=re.DOTALL)
    text = re.sub(
        r"^#{1,6} .*$|^\|.*\|\n(?=\|[-| :]+\|$)", blank, text, flags=re.MULTILINE
    )  # and tables' heads
    return _plain(text)


def _plain(text: str) -> str:
    """Replace code and links by the words that are read for them, and the mark of a list item by a bullet."""
    text = re.sub(r"(`+)(?!`).*?\1", "code", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)\s]*\)", "]", text)
    text = re.sub(r"^\s*(?:[-*+>]|\d+\.) +", "• ", text, flags=re.MULTILINE)
    return re.sub(r"[*_\[\]]", "", text)


def _notebook(path: Path) -> Iterator[Prose]:
    for cell in nb.read(path)["cells"]:
        if cell["cell_type"] == "markdown":
            yield Prose(1, markdown(nb.source(cell)))
        else:
            code = re.sub(r"^[%!].*$", "", nb.source(cell), flags=re.MULTILINE)
            yield from _comments(code)
            yield from _strings(ast.parse(code), docstrings_only=False)


def _comments(text: str) -> Iterator[Prose]:
    """Each run of comment lines is one passage."""
    run: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if run and (line != last + 1 or token.line[: token.start[1]].strip()):
            yield Prose(first, _plain("\n".join(run)))
            run = []
        first, last = (first if run else line), line
        run.append(token.string.lstrip("#:! "))
    if run:
        yield Prose(first, _plain("\n".join(run)))


def _strings(tree: ast.AST, *, docstrings_only: bool) -> Iterator[Prose]:
    """Docstrings, and else every string of a few words: most of them are messages."""
    docstrings = {
        id(body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (body := node.body)
        and isinstance(body[0], ast.Expr)
    }
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in parts or (docstrings_only and id(node) not in docstrings):
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len(text.split()) >= SHORTEST_MESSAGE:
            yield Prose(node.lineno, markdown("\n".join(line.strip() for line in text.split("\n"))))


def our_files() -> list[Path]:
    """Return the files of the repository that hold the project's own prose."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    paths = (path for path in (*ROOT.iterdir(), *inside) if path.is_file() and path.resolve() == path)
    return sorted(path for path in paths if _ours(path))


def _ours(path: Path) -> bool:
    name = path.relative_to(ROOT).as_posix()
    if re.match(r"exercises/|tests/exercises/(wrong|right)/|tools/tinytales/|minillm/models/", name):
        return False  # generated from solutions/; written as learners write; stories
    if name in ("tools/style.py", "tests/test_style.py"):
        return False  # the habits themselves
    return path.suffix in (".md", ".py", ".ipynb", ".sh") or path.name == "Makefile"


def main(names: list[str]) -> int:
    """Print every habit in the files, and return 1 if there is one."""
    status = 0
    for path in [Path(name) for name in names] or our_files():
        for hit in hits(passages(path)):
            print(f"{path}:{hit.line}: {hit.words!r} ({hit.habit})")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
