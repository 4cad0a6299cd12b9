"""Run the examples of the README and write what they print into it.

    python -m tools.readme            run and write
    python -m tools.readme --check    run, and exit with status 1 if the README shows something else

An example is a block of `python`, or the `minillm generate` lines of a block of `sh`. A block of `text` right after it
holds its output. Python examples share their names, because a reader types them one after the other. An example with
the model of `make real` is run only if that model is there.
"""

import contextlib
import io
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minillm import cli

README = Path(__file__).parents[1] / "README.md"
REAL = ".real/"  # the folder of the model that `make real` downloads, as the README names it
WIDTH = 100
_EXAMPLE = re.compile(r"^```(python|sh)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def with_outputs(text: str, *, real: bool = False) -> str:
    """Return the text with the output of every example after the example. Raises the example's own exception.

    `real` also runs the examples with the model of `make real`. Otherwise these keep the output that they show.
    """
    names: dict[str, Any] = {}

    def shown(match: re.Match[str]) -> str:
        kind, code, _ = match.groups()
        if REAL in code and not real:
            return match[0]
        printed = _printed(lambda: exec(code, names)) if kind == "python" else _printed(lambda: _shell(code))
        block = f"```{kind}\n{code}```\n"
        return block + (f"\n```text\n{printed}```\n" if printed else "")

    return _EXAMPLE.sub(shown, text)


def commands(text: str, program: str) -> list[list[str]]:
    """Return the words of every command in the text's `sh` blocks that calls `program`, without the comments."""
    lines = [line for kind, code, _ in _EXAMPLE.findall(text) if kind == "sh" for line in code.splitlines()]
    return [
        words[1:] for line in lines if (words := shlex.split(line, comments=True)) and words[0] == program
    ]


def _shell(code: str) -> None:
    for words in commands(f"```sh\n{code}```\n", "minillm"):
        if words[0] == "generate" and (status := cli.main(words)):
            raise RuntimeError(f"minillm {shlex.join(words)} ended with status {status}")


def _printed(run: Callable[[], None]) -> str:
    """Return the lines that a function prints. Long lines are folded to fit the page."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run()
    lines = out.getvalue().rstrip().splitlines()
    return "".join(f"{textwrap.fill(line, WIDTH)}\n" for line in lines)


def main(*, check: bool) -> int:
    """Run the examples; write the README, or only compare."""
    before = README.read_text(encoding="utf-8")
    after = with_outputs(before, real=Path(REAL).exists())
    if after == before:
        return 0
    if check:
        print("README.md shows other outputs than its examples print now: make readme")
        return 1
    README.write_text(after, encoding="utf-8", newline="\n")
    print("README.md: outputs written")
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
