"""Show the package's own source in a chapter, read from the file at that moment and highlighted by the viewer."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


class SourceCode:
    """The source of functions, methods or classes, as Markdown: JupyterLab and GitHub highlight it."""

    def __init__(self, *parts: Callable[..., Any] | type | str) -> None:
        places = [_place(part) for part in parts]
        self._sections = [_section(path, name) for path, name in places]
        self._names = [name for _, name in places]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/markdown": "\n\n".join(self._sections), "text/plain": ", ".join(self._names)}


def source(*parts: Callable[..., Any] | type | str) -> SourceCode:
    """Return the source of each part, below the file that it is in.

    A part is a function or class, or its file in the package and its name, for a module that cannot be imported on
    every system: "kernels/flash_attention.py:_attend".
    """
    return SourceCode(*parts)


def extract(path: Path, qualified_name: str) -> str:
    """Return the source of a definition from its file. Raises LookupError if the file has no such definition."""
    text = path.read_text(encoding="utf-8")
    scope: ast.AST = ast.parse(text)
    for name in qualified_name.split("."):
        body = getattr(scope, "body", [])
        found = [node for node in body if getattr(node, "name", None) == name]
        if not found:
            raise LookupError(f"{path} has no {qualified_name}")
        scope = found[0]
    assert isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    first = min([scope.lineno, *(decorator.lineno for decorator in scope.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : scope.end_lineno]))


def _place(part: Callable[..., Any] | type | str) -> tuple[Path, str]:
    """Return the file and the qualified name of a part."""
    if isinstance(part, str):
        file, _, name = part.partition(":")
        return PACKAGE / file, name
    made_by = inspect.unwrap(part)
    return Path(inspect.getsourcefile(made_by) or ""), made_by.__qualname__


def _section(path: Path, name: str) -> str:
    shown = f"minillm/{path.relative_to(PACKAGE).as_posix()}"
    return f"`{shown}` · `{name}`\n```python\n{extract(path, name)}\n```"
