"""Find the answers for the proofs: the stub, the solution, and the wrong and other right answers of each exercise."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minillm.course import notebook as nb
from minillm.course.check import Report, grade
from minillm.course.exercise import Exercise, chapter_exercises, chapters, find
from minillm.course.source import Source, from_cells, from_text

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
EXERCISES = [exercise for chapter in chapters() for exercise in chapter_exercises(chapter)]


@dataclass(frozen=True)
class AnswerFile:
    """A file of wrong/ or right/. Its first lines name the exercise and, if it is wrong, what the learner must read."""

    path: Path
    exercise: Exercise
    says: str

    def source(self) -> Source:
        return from_text(self.path.read_text(encoding="utf-8"), self.exercise.function)


def answers(kind: str) -> list[AnswerFile]:
    """All files of tests/exercises/`kind`. Raises ValueError for one without its lines."""
    found = []
    for path in sorted((HERE / kind).glob("ch*/*.py")):
        fields = dict(
            re.findall(r"^# (exercise|says): (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        )
        if "exercise" not in fields or ("says" in fields) != (kind == "wrong"):
            raise ValueError(
                f"{path} must begin with `# exercise: 01.1`, and a wrong one go on with `# says: …`"
            )
        found.append(AnswerFile(path, find(fields["exercise"]), fields.get("says", "")))
    return found


def notebook(folder: str, chapter: str) -> nb.Notebook:
    """The chapter's notebook in solutions/ or exercises/."""
    (path,) = (ROOT / folder).glob(f"{chapter}_*.ipynb")
    return nb.read(path)


def from_notebook(folder: str, exercise: Exercise) -> Source:
    return from_cells(nb.code_cells(notebook(folder, exercise.chapter)), exercise.function)


@cache
def report(answer: AnswerFile) -> Report:
    """Return the check's report on an answer. Each answer is checked once."""
    return grade(answer.exercise, answer.source())
