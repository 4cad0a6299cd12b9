"""The learner's marks, kept across sessions in one JSON file of the user's data folder.

A damaged file is copied aside, and what can be read of it stays. A file that cannot be read or written costs the
memory, never the check. The caller prints the sentence that says so. Fields that this version does not know stay in
the file.
"""

import datetime
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minillm import store


@dataclass
class Mark:
    """The best mark of an exercise, the day it was earned, and how many hints were asked for."""

    points: int
    date: str = ""
    hints: int = 0

    def merge(self, other: "Mark") -> None:
        """Take the better of two marks of one exercise, and the larger number of hints."""
        if other.date and (other.points > self.points or not self.date):
            self.points, self.date = other.points, other.date
        self.hints = max(self.hints, other.hints)


@dataclass
class Progress:
    """Marks by exercise. `notice` is what the learner should be told about the file."""

    marks: dict[str, Mark] = field(default_factory=dict)
    notice: str = ""


# What was earned while the file could not be written: the next hint must go one further all the same.
_unsaved: dict[str, Mark] = {}


def data_dir() -> Path:
    """Where minillm keeps what it cannot make again: $MINILLM_DATA, or `minillm` in the system's data folder.

    Raises RuntimeError where the user has no home folder.
    """
    if chosen := os.environ.get("MINILLM_DATA"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "minillm"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "minillm"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "minillm"


def load() -> Progress:
    """The marks so far."""
    try:
        _, marks, damage = _read(data_dir() / "progress.json")
    except (OSError, RuntimeError) as error:
        return Progress(dict(_unsaved), f"Your marks so far cannot be read: {error}")
    return Progress(marks, f"The file with your marks is damaged ({damage})." if damage else "")


def record(exercise_id: str, points: int, of: int) -> tuple[int, str]:
    """Keep a mark if it is the best so far; (the best mark, what the learner should be told)."""
    mark, notice = _keep(exercise_id, Mark(points, datetime.date.today().isoformat()))
    return min(mark.points, of), notice


def use_hint(exercise_id: str, most: int) -> tuple[int, str]:
    """Count one hint more; (how many now, what the learner should be told)."""
    used = load().marks.get(exercise_id, Mark(0)).hints
    mark, notice = _keep(exercise_id, Mark(0, hints=min(used + 1, most)))
    return mark.hints, notice


def _keep(exercise_id: str, mark: Mark) -> tuple[Mark, str]:
    """Merge a mark into the file, or keep it in memory; (the exercise's mark now, what the learner should be told)."""
    _unsaved.setdefault(exercise_id, Mark(0)).merge(mark)
    marks, notice = dict(_unsaved), ""
    try:
        path = data_dir() / "progress.json"
        with store.locked(path.parent):
            content, marks, damage = _read(path)
            if damage:
                notice = (
                    f"The file with your marks is damaged ({damage}). It is kept as {store.set_aside(path)}, and a new "
                    "one has what could be read of it."
                )
            entries = content["exercises"]
            for key, mark in marks.items():
                entries[key] = entries.get(key, {}) | asdict(mark)
            store.write(path, json.dumps(content, indent=1) + "\n")
    except (OSError, RuntimeError) as error:
        return marks[exercise_id], (
            f"Your marks cannot be kept beyond this session: {error}. MINILLM_DATA can name another folder."
        )
    _unsaved.clear()
    return marks[exercise_id], notice


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Mark], str]:
    """(what the file holds, the marks in it and in memory, what is wrong with it or ""). Raises OSError."""
    content, marks, damage = dict[str, Any](exercises={}), dict[str, Mark](), ""
    try:
        found = dict(store.read(path))
        marks, damage = store.records(Mark, found["exercises"])
        content = found | {"exercises": {key: found["exercises"][key] for key in marks}}
    except FileNotFoundError:
        pass  # no marks yet
    except (ValueError, TypeError, KeyError) as error:
        damage = repr(error)
    for key, mark in _unsaved.items():
        marks.setdefault(key, Mark(0)).merge(mark)
    return content, marks, damage
