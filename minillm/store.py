"""Small JSON files that several processes read and write: whole or not at all, one writer at a time, nothing lost.

A writer holds the folder's lock from reading to writing. A reader needs none: it meets the old file or the new one.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

Record = TypeVar("Record")


def read(path: Path) -> Any:
    """Return the JSON value in a file. Raises OSError if the file cannot be read, and ValueError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from error


def write(path: Path, text: str) -> None:
    """Replace a file, and make its folder if there is none. Raises OSError, and then the old file is as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def set_aside(path: Path, label: str = "damaged") -> Path:
    """Copy a file to NAME.damaged-N, with the first free number, and return the copy's path. Raises OSError."""
    number = 1
    while (copy := path.with_name(f"{path.stem}.{label}-{number}{path.suffix}")).exists():
        number += 1
    try:
        shutil.copyfile(path, copy)
    except OSError:
        copy.unlink(missing_ok=True)
        raise
    return copy


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if there is none. On a file system without locks, hold none."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (
        os.open(folder / ".lock", os.O_RDWR | os.O_CREAT) if sys.platform == "win32" else os.open(folder, 0)
    )
    try:
        with suppress(OSError):
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(lock, msvcrt.LK_LOCK, 1)
            else:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)  # and the lock is gone


def records(kind: type[Record], entries: Any) -> tuple[dict[str, Record], str]:
    """Return the valid records of a JSON object by key, and the first error of the invalid ones, or "".

    `kind` is a dataclass of plain types. Fields that it does not have are ignored.
    """
    if not isinstance(entries, dict):
        return {}, f"{entries!r:.40} where an object is expected"
    good, damage = {}, ""
    for key, entry in entries.items():
        try:
            good[key] = _record(kind, entry)
        except ValueError as error:
            damage = damage or f"{key}: {error}"
    return good, damage


def _record(kind: type[Record], entry: Any) -> Record:
    """Return a record from its JSON object. Raises ValueError if a field is missing, of a wrong type, or negative."""
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r:.40} where an object is expected")
    known: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        value = known[field.name] = entry.get(field.name, field.default)
        allowed = float | int if field.type is float else field.type
        if value is MISSING:
            raise ValueError(f"{field.name} is missing")
        if not isinstance(value, allowed) or (isinstance(value, int) and value < 0):  # type: ignore[arg-type]
            raise ValueError(f"{field.name} is {value!r:.40}")
    return kind(**known)
