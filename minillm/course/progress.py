"""The learner's marks, kept across sessions in one JSON file in the user's data folder.

A damaged file is copied aside, and the marks that can be read stay. If the file cannot be read or written, the check
still runs, and its caller prints a notice. Fields that this version does not know stay in the file.
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
    """Marks by exercise. `notice` is a sentence about the file for the learner, or ""."""

    marks: dict[str, Mark] = field(default_factory=dict)
    notice: str = ""


# Marks and hints from a time when the file could not be written. The next hint must still be the next one.
_unsaved: dict[str, Mark] = {}


def data_dir() -> Path:
    """Return the folder for marks and predictions: $MINILLM_DATA, or `minillm` in the system's data folder.

    Raises RuntimeError if the user has no home folder.
    """
    if chosen := os.environ.get("MINILLM_DATA"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "minillm"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "minillm"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "minillm"


def load() -> Progress:
    """Return the marks so far. If the file cannot be read, its `notice` says why."""
    try:
        _, marks, damage = _read(data_dir() / "progress.json")
    except (OSError, RuntimeError) as error:
        return Progress(dict(_unsaved), f"Your marks so far cannot be read: {error}.")
    return Progress(marks, f"The file with your marks is damaged ({damage})." if damage else "")


def record(exercise_id: str, points: int, of: int) -> tuple[int, str]:
    """Keep a mark if it is the best so far. Return the best mark and a notice for the learner, or ""."""
    mark, notice = _keep(exercise_id, Mark(points, datetime.date.today().isoformat()))
    return min(mark.points, of), notice


def use_hint(exercise_id: str, most: int) -> tuple[int, str]:
    """Count one more hint, up to `most`. Return the number used and a notice for the learner, or ""."""
    used = load().marks.get(exercise_id, Mark(0)).hints
    mark, notice = _keep(exercise_id, Mark(0, hints=min(used + 1, most)))
    return mark.hints, notice


def _keep(exercise_id: str, mark: Mark) -> tuple[Mark, str]:
    """Merge a mark into the file, or else keep it in memory. Return the exercise's mark now and a notice, or ""."""
    _unsaved.setdefault(exercise_id, Mark(0)).merge(mark)
    marks, notice = dict(_unsaved), ""
    try:
        path = data_dir() / "progress.json"
        with store.locked(path.parent):
            content, marks, damage = _read(path)
            if damage:
                notice = (
                    f"The file with your marks is damaged ({damage}). It is kept as {store.set_aside(path)}. "
                    "A new file has the marks that could be read."
                )
            entries = content["exercises"]
            for key, mark in marks.items():
                entries[key] = entries.get(key, {}) | asdict(mark)
            store.write(path, json.dumps(content, indent=1) + "\n")
    except (OSError, RuntimeError) as error:
        return marks[exercise_id], (
            f"Your marks cannot be kept after this session: {error}. Set MINILLM_DATA to another folder."
        )
    _unsaved.clear()
    return marks[exercise_id], notice


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Mark], str]:
    """Return (the file's content, the marks in it and in memory, the damage or ""). Raises OSError."""
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
