"""The learner's marks, kept across sessions in one JSON file of the user's data folder.

A file that is damaged is set aside under another name and a new one begun; a folder that cannot be written costs the
memory, never the check. Either is said in a sentence that the caller prints. Fields that this version does not know
stay in the file.
"""

import datetime
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Mark:
    """The best mark of an exercise, the day it was earned, and how many hints were asked for."""

    points: int = 0
    date: str = ""
    hints: int = 0


@dataclass
class Progress:
    """Marks by exercise. `notice` is what the learner should be told about the file."""

    marks: dict[str, Mark] = field(default_factory=dict)
    notice: str = ""
    unknown: dict[str, Any] = field(default_factory=dict)


# Hints asked for while the file cannot be written: the next call must go one further all the same.
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
        path = data_dir() / "progress.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        marks = {key: Mark(**mark) for key, mark in content.pop("exercises").items()}
        for mark in marks.values():
            int(mark.points), int(mark.hints)
        return Progress(marks | _unsaved, unknown=content)
    except FileNotFoundError:
        return Progress(dict(_unsaved))
    except (OSError, RuntimeError) as error:
        return Progress(dict(_unsaved), notice=f"Your marks so far cannot be read: {error}")
    # Anything may stand in a damaged file: text that is no JSON, JSON of another shape.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return Progress(dict(_unsaved), notice=_set_aside(path, error))


def record(exercise_id: str, points: int, of: int) -> tuple[int, str]:
    """Keep a mark if it is the best so far; (the best mark, what the learner should be told)."""
    progress = load()
    mark = progress.marks.setdefault(exercise_id, Mark())
    if points > mark.points or not mark.date:
        mark.points, mark.date = points, datetime.date.today().isoformat()
    return min(mark.points, of), _save(progress)


def use_hint(exercise_id: str, most: int) -> tuple[int, str]:
    """Count one hint more; (how many now, what the learner should be told)."""
    progress = load()
    mark = progress.marks.setdefault(exercise_id, Mark())
    mark.hints = min(mark.hints + 1, most)
    return mark.hints, _save(progress)


def _save(progress: Progress) -> str:
    content = progress.unknown | {"exercises": {key: asdict(mark) for key, mark in progress.marks.items()}}
    try:
        folder = data_dir()
        folder.mkdir(parents=True, exist_ok=True)
        # A reader meets the old file or the new one, never half of it.
        draft = folder / f"progress.{os.getpid()}.tmp"
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        draft.replace(folder / "progress.json")
    except (OSError, RuntimeError) as error:
        _unsaved.update(progress.marks)
        return " ".join(
            filter(
                None,
                [
                    progress.notice,
                    f"Your marks cannot be kept beyond this session: {error}. MINILLM_DATA can name another folder.",
                ],
            )
        )
    _unsaved.clear()
    return progress.notice


def _set_aside(path: Path, error: Exception) -> str:
    """Rename the damaged file to the first free number."""
    number = 1
    while (backup := path.with_name(f"progress.damaged-{number}.json")).exists():
        number += 1
    try:
        path.rename(backup)
    except OSError as problem:
        return f"The file with your marks is damaged ({error}) and cannot be set aside: {problem}"
    return f"The file with your marks is damaged ({error}). It is kept as {backup}, and a new one is begun."
