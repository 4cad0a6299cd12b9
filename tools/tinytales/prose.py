"""Real English that comes with every Python: the language reference topics and the standard library's docstrings.

Stories teach a small model grammar; this prose (PSF licence, free to redistribute) adds an adult vocabulary.
Source files are parsed with `ast`, never imported, so nothing runs and the result depends on the files alone.
"""

import ast
import hashlib
import inspect
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MIN_CHARS = 200
SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "idle_test",
    "lib2to3",
    "site-packages",
    "encodings",
    "__pycache__",
    "pydoc_data",
    "dist-packages",
    "lib-dynload",
    "turtledemo",
}
RULE_LINE = re.compile(r"^\s*[-=~*#_+^]{3,}\s*$")
CODE_LINE = re.compile(
    r"^\s*(>>>|\.\.\. |\.\.\.$|[$|+]|[\w.\[\]'\"]+ *= |def |class |import |from \w+ import )"
)


def clean(text: str) -> str:
    """Dedent, drop ruled lines, and collapse runs of spaces and blank lines."""
    lines = [line for line in inspect.cleandoc(text).splitlines() if not RULE_LINE.match(line)]
    lines = [re.sub(r"(?<=\S)[ \t]{2,}", " ", line).rstrip() for line in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def is_prose(text: str) -> bool:
    """True when the text is long enough, mostly letters, and not mostly code or doctest."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(text) < MIN_CHARS or not lines:
        return False
    letters = sum(char.isalpha() or char == " " for char in text) / len(text)
    code = sum(bool(CODE_LINE.match(line)) for line in lines) / len(lines)
    return letters > 0.75 and code < 0.35


def topics() -> Iterator[str]:
    """The reference topics: one big dict literal of strings, read without importing it."""
    source = Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for value in node.value.values:
                yield ast.literal_eval(value)


def top_comment(source: str) -> str:
    """The block of comment lines that opens a file, without its hash signs."""
    lines = []
    for line in source.splitlines():
        if not line.startswith("#") and line.strip():
            break
        if not line.startswith(("#!", "# -*-")):
            lines.append(line.lstrip("#").removeprefix(" "))
    return "\n".join(lines)


def docstrings(source: str) -> Iterator[str]:
    """Every docstring of a source file, in file order of its syntax tree."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield text


def sources() -> Iterator[str]:
    """The text of every standard library file worth reading, in sorted order."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if SKIPPED.isdisjoint(path.relative_to(root).parts):
            try:
                source = path.read_text(encoding="utf-8")
                ast.parse(source)
            except (UnicodeDecodeError, SyntaxError, ValueError):
                continue
            yield source


def candidates() -> Iterator[str]:
    yield from topics()
    for source in sources():
        yield top_comment(source)
        yield from docstrings(source)


def documents() -> Iterator[str]:
    """Yield each cleaned document once, in an order that never changes."""
    seen: set[bytes] = set()
    for text in map(clean, candidates()):
        digest = hashlib.sha256(text.encode()).digest()
        if is_prose(text) and digest not in seen:
            seen.add(digest)
            yield text


if __name__ == "__main__":
    found = list(documents())
    print(f"{len(found)} documents, {sum(map(len, found)):,} characters")
