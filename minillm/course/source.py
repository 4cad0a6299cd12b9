"""A learner's function as text: its source and the source of all that it uses, as one module for a worker to import.

From a live notebook (`from_function`), the module contains the function's cell. The names that it uses are added
recursively: the notebook's functions and classes as source, modules as imports, and anything else by value (a pickle).
From a notebook file (`from_cells`), the module contains the statements on which the function depends. They are not run.
"""

import ast
import builtins
import inspect
import io
import linecache
import pickle
import symtable
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from minillm.errors import MinillmError

LARGEST_VALUE = 64_000_000  # bytes of a pickled value; sending more would take longer than a check may take


class CannotSend(MinillmError):
    """The learner's function uses something that cannot be sent to the worker."""


@dataclass
class Source:
    """One module as text. `values` are pickles that the module loads by name through SENT."""

    function: str
    home: str = "__main__"  # the module's name, by which pickles refer to its classes
    text: str = ""
    values: dict[str, bytes] = field(default_factory=dict)
    starts: list[tuple[int, int, str]] = field(default_factory=list)  # (line here, line there, what)

    def add(self, text: str, line: int = 1, what: str = "") -> None:
        """Append a piece, which begins at `line` of the cell that defines `what`."""
        self.starts.append((self.text.count("\n") + 1, line, what))
        self.text += text.rstrip("\n") + "\n"

    def place(self, line: int) -> str:
        """Return the place in the notebook of line `line` of the text: "line 3 of the cell with f"."""
        here, there, what = self.starts[bisect_right(self.starts, line, key=lambda start: start[0]) - 1]
        cell = "" if what in ("", self.function) else f" of the cell with {what}"
        return f"line {there + line - here}{cell}"


SENT = "__sent__"  # the function in the worker's module that returns a sent value by its name


def from_text(text: str, function: str) -> Source:
    """Return the source of a whole file."""
    source = Source(function)
    source.add(text)
    return source


def from_function(answer: Callable[..., Any], name: str = "") -> Source:
    """Return the source of a function, class or partial, and of all that it uses.

    `name` is for an answer that has no name itself. Raises CannotSend with the obstacle.
    """
    made_by = _bare(answer.func if isinstance(answer, partial) else answer)
    if not isinstance(made_by, FunctionType | type):
        raise CannotSend(
            f'a check takes your function itself, as in check("01.1", causal_attention); this is a '
            f"{type(answer).__name__}" + (": leave out the call's ()" if not callable(answer) else "")
        )
    if f"{made_by.__module__}.".startswith("minillm."):
        raise CannotSend(
            f"{made_by.__module__}.{made_by.__qualname__} is minillm's own function; a check takes yours"
        )
    if not isinstance(answer, partial) and made_by.__name__.isidentifier():
        name = made_by.__name__
    collector = _Collector(made_by.__module__, Source(name, made_by.__module__))
    collector.add(name, answer)
    return collector.source


class _Collector:
    """Adds names to a source, each after those that it depends on."""

    def __init__(self, home: str, source: Source) -> None:
        self.home, self.source = home, source
        self.seen: set[str] = set()

    def add(self, name: str, value: Any) -> None:
        if name in self.seen:
            return
        self.seen.add(name)
        if isinstance(value, ModuleType):
            self.source.add(f"import {value.__name__} as {name}")
        elif self._is_own(value):
            self._add_definition(name, value)
        else:
            self._add_value(name, value)

    def _is_own(self, value: Any) -> bool:
        value = _bare(value)
        return isinstance(value, FunctionType | type) and value.__module__ == self.home

    def _add_definition(self, name: str, value: Any) -> None:
        value = _bare(value)
        if isinstance(value, FunctionType) and value.__closure__ and "<locals>" in value.__qualname__:
            raise CannotSend(f"`{name}` is defined inside another function: define it at the top of a cell")
        text, line = _definition(name, value)
        scope = value.__globals__ if isinstance(value, FunctionType) else vars(sys.modules[self.home])
        for used in sorted(_names_used(text) - {name}):
            if used in scope:
                self.add(used, scope[used])
        self.source.add(text, line, name)

    def _add_value(self, name: str, value: Any) -> None:
        buffer = io.BytesIO()
        pickler = _Pickler(buffer, self.home)
        try:
            pickler.dump(value)
        except Exception as error:  # __reduce__ may raise anything
            raise CannotSend(
                f"{self.source.function} uses `{name}`, a {type(value).__name__} of your notebook that cannot be sent "
                f"to the checking process ({error}). Use arguments, imports, plain values and your own functions only"
            ) from None
        if buffer.tell() > LARGEST_VALUE:
            raise CannotSend(
                f"{self.source.function} uses `{name}` of your notebook, {buffer.tell() / 1e6:.0f} MB; at most "
                f"{LARGEST_VALUE / 1e6:.0f} MB are sent to the checking process. Take what you need as an argument"
            )
        for own in pickler.own:
            self.add(own.__name__, own)
        self.source.values[name] = buffer.getvalue()
        self.source.add(f"{name} = {SENT}({name!r})")


def _bare(value: Any) -> Any:
    """Return the function inside its decorators: functools.wraps leaves __wrapped__, triton.jit leaves fn."""
    if callable(value) and not isinstance(value, type):
        value = inspect.unwrap(value)
        inner = getattr(value, "fn", None)
        return inner if isinstance(inner, FunctionType) else value
    return value


class _Pickler(pickle.Pickler):
    """Lists the notebook's own classes and functions that a pickle refers to by name."""

    def __init__(self, file: io.BytesIO, home: str) -> None:
        super().__init__(file)
        self.home = home
        self.own: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType | type) and obj.__module__ == self.home:
            self.own.append(obj)
        return NotImplemented


def _definition(name: str, value: Any) -> tuple[str, int]:
    """Return the top-level statement that defines a function or class, and its first line in its cell."""
    known_as = value.__name__ if value.__name__.isidentifier() else name  # a lambda has no name
    for text, number in _cells(value):
        lines = text.splitlines(keepends=True)
        try:
            statements = ast.parse(text).body
        except SyntaxError:
            continue
        for statement in reversed(statements):
            first, last = _first_line(statement), statement.end_lineno or 0
            own = "".join(lines[first - 1 : last])
            bound = known_as in _names_bound(own)
            if bound if number is None else first <= number <= last:
                return own if bound else f"{name} = {_only_lambda(name, statement)}\n", first
    raise CannotSend(
        f"the source of `{name}` cannot be found: define it in a cell of this notebook, and run that cell"
    )


def _only_lambda(name: str, statement: ast.stmt) -> str:
    """Return the only lambda of a statement that gives it no name, such as `check("01.2", lambda x: …)`."""
    found = [node for node in ast.walk(statement) if isinstance(node, ast.Lambda)]
    if len(found) != 1:
        raise CannotSend(f"give your lambda a name of its own, as in `{name} = lambda …`")
    return ast.unparse(found[0])


def _cells(value: Any) -> Iterable[tuple[str, int | None]]:
    """Yield texts that may define `value`, the likeliest first, and its line if that is known."""
    functions = [value] if isinstance(value, FunctionType) else vars(value).values()
    for function in functions:
        # The generated methods of a dataclass have no file, and neither has code that a magic such as %%time ran.
        if isinstance(function, FunctionType) and (
            lines := linecache.getlines(function.__code__.co_filename)
        ):
            yield "".join(lines), function.__code__.co_firstlineno if function is value else None
    module = sys.modules[value.__module__]
    for cell in reversed(getattr(module, "In", [])):  # the last definition in IPython's history counts
        yield _without_magics(cell), None
    if path := getattr(module, "__file__", None):
        yield "".join(linecache.getlines(path)), None


def _first_line(statement: ast.stmt) -> int:
    """Return the first line of a statement, its decorators included."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _names_used(text: str) -> set[str]:
    """Return the global names that a text reads, in any of its scopes."""
    tables = [symtable.symtable(text, "<learner>", "exec")]
    names = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_referenced()}
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return names


def _names_bound(text: str) -> set[str]:
    """Return the names that a text binds at its top level."""
    table = symtable.symtable(text, "<learner>", "exec")
    return {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}


def from_cells(cells: Iterable[str], function: str) -> Source:
    """Return the statements of these code cells on which `function` depends, in order.

    Raises CannotSend if no cell defines `function`.
    """
    statements: list[tuple[str, int, str, set[str]]] = []  # text, line, a name it binds, all names it binds
    broken = ""
    for number, cell in enumerate(cells, start=1):
        lines = _without_magics(cell).splitlines(keepends=True)
        try:
            body = ast.parse("".join(lines)).body
        except SyntaxError as error:
            broken += f" Code cell {number} has a syntax error at line {error.lineno}: {error.msg}."
            continue
        for statement in body:
            first = _first_line(statement)
            text = "".join(lines[first - 1 : statement.end_lineno])
            if bound := _names_bound_by(statement, text):
                statements.append((text, first, min(bound), bound))
    if not any(function in bound for *_, bound in statements):
        raise CannotSend(f"no cell defines `{function}`.{broken}")
    return _slice(statements, function)


def _names_bound_by(statement: ast.stmt, text: str) -> set[str]:
    if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
        return {"*"}  # the names are unknown, so the statement is always included
    return _names_bound(text)


def _slice(statements: list[tuple[str, int, str, set[str]]], function: str) -> Source:
    needed, size = {function, "*"}, 0
    while len(needed) > size:
        size = len(needed)
        for text, *_, bound in statements:
            if bound & needed:
                needed |= _names_used(text) - set(vars(builtins))
    source = Source(function)
    for text, line, what, bound in statements:
        if bound & needed:
            source.add(text, line, function if function in bound else what)
    return source


def _without_magics(cell: str) -> str:
    """Return a cell as Python with the same line numbers.

    The code after `%%time` and `%time` is kept; other magics and ! lines become empty.
    """
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ImportError:
        pass  # without IPython there are no magics to translate
    else:
        empty = cell[: len(cell) - len(cell.lstrip())].count("\n")  # IPython removes these lines
        cell = "\n" * empty + TransformerManager().transform_cell(cell)
    return "".join(_without_magic(line) for line in cell.splitlines(keepends=True))


def _without_magic(line: str) -> str:
    """Return one line without its magic.

    IPython turns a magic into a call with two texts: its name, and its line or the rest of the cell.
    """
    if line.startswith(("%", "!")):
        return line.removeprefix("%time ") if line.startswith("%time ") else "\n"
    if not line.startswith("get_ipython()."):
        return line
    texts = [str(node.value) for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Constant)]
    if "run_cell_magic(" in line:
        return "\n" + _without_magics(texts[-1])
    return f"{texts[-1]}\n" if texts[0] == "time" else "\n"
