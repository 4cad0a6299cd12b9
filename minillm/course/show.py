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

    def __init__(self, *parts: Callable[..., Any] | type) -> None:
        self._sections = [_section(part) for part in parts]
        self._names = [part.__qualname__ for part in parts]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/markdown": "\n\n".join(self._sections), "text/plain": ", ".join(self._names)}


def source(*parts: Callable[..., Any] | type) -> SourceCode:
    """Return the source of each part, below the file that it is in."""
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
    assert isinstance(scope, ast.FunctionDef | ast.ClassDef)
    first = min([scope.lineno, *(decorator.lineno for decorator in scope.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : scope.end_lineno]))


def _section(part: Callable[..., Any] | type) -> str:
    made_by = inspect.unwrap(part)
    path = Path(inspect.getsourcefile(made_by) or "")
    shown = f"minillm/{path.relative_to(PACKAGE).as_posix()}"
    code = extract(path, made_by.__qualname__)
    return f"`{shown}` · `{made_by.__qualname__}`\n```python\n{code}\n```"
