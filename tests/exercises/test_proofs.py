"""Every check is proved: it fails what is wrong, each mistake with its own message, and passes whatever is right."""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from _pytest.mark import ParameterSet

from minillm.course import notebook as nb
from minillm.course.check import Report, grade
from minillm.course.exercise import Exercise
from minillm.course.source import from_text
from tests.exercises.answers import EXERCISES, AnswerFile, answers, from_notebook, notebook, report

WRONG, RIGHT = answers("wrong"), answers("right")


def possible(exercise: Exercise) -> list[pytest.MarkDecorator]:
    return [pytest.mark.skipif(not exercise.can_be_done, reason=f"needs {exercise.needs}")]


every_exercise = pytest.mark.parametrize(
    "exercise", [pytest.param(exercise, marks=possible(exercise), id=exercise.id) for exercise in EXERCISES]
)


def each(answers: list[AnswerFile], quick: int) -> list[ParameterSet]:
    """All answers as parameters; those of an exercise after the first `quick` are left to `make test`."""
    counts = Counter[str]()
    params = []
    for answer in answers:
        counts[answer.exercise.id] += 1
        marks = possible(answer.exercise)
        if counts[answer.exercise.id] > quick:
            marks.append(pytest.mark.slow)
        params.append(pytest.param(answer, marks=marks, id=f"{answer.exercise.id}-{answer.path.stem}"))
    return params


@cache
def solved(exercise: Exercise) -> Report:
    return grade(exercise, from_notebook("solutions", exercise))


@every_exercise
def test_the_untouched_stub_earns_nothing(exercise: Exercise) -> None:
    result = grade(exercise, from_notebook("exercises", exercise))
    assert result.earned == 0
    assert all("is not written yet" in part.wrong for part in result.parts), str(result)


@every_exercise
def test_the_solution_earns_all(exercise: Exercise) -> None:
    result = solved(exercise)
    assert result.earned == exercise.points, str(result)
    assert not result.output, "a solution prints nothing"


@every_exercise
def test_it_is_the_learners_function_that_runs(exercise: Exercise) -> None:
    """A function (or class: the call is the same) that only raises is met by every part."""
    probe = f"class {exercise.function}:\n    def __init__(self, *a, **k):\n        raise RuntimeError('probe 7341')\n"
    result = grade(exercise, from_text(probe, exercise.function))
    assert [part.name for part in result.parts if "probe 7341" not in part.wrong] == [], str(result)


@pytest.mark.parametrize("answer", each(WRONG, quick=3))
def test_a_wrong_answer_reads_its_own_message(answer: AnswerFile) -> None:
    result = report(answer)
    assert result.earned < answer.exercise.points, "it passes"
    assert answer.says in result.message, str(result)
    # The same mistake in another form is told the same.
    others = [other for other in WRONG if other.exercise is answer.exercise and other.says != answer.says]
    assert [other.path.name for other in others if other.says in result.message] == [], "not its own"


@pytest.mark.slow
@pytest.mark.parametrize("answer", each(RIGHT, quick=2))
def test_another_right_answer_passes(answer: AnswerFile) -> None:
    assert report(answer).earned == answer.exercise.points, str(report(answer))


@every_exercise
def test_there_are_answers_enough(exercise: Exercise) -> None:
    assert len([answer for answer in WRONG if answer.exercise is exercise]) >= 3
    assert len([answer for answer in RIGHT if answer.exercise is exercise]) >= 2


@every_exercise
def test_the_words_and_the_checks_agree(exercise: Exercise) -> None:
    result = solved(exercise)
    assert sum(part.points for part in result.parts) == exercise.points
    assert len({part.name for part in result.parts}) == len(result.parts)
    assert exercise.id.count(".") == 1 and 1 <= exercise.difficulty <= 5 and exercise.minutes > 0
    assert len(set(exercise.hints)) == 3 and all(exercise.hints)


@every_exercise
def test_the_solutions_cells_are_marked_for_nbgrader(exercise: Exercise) -> None:
    """One cell with the answer between the markers, and one check that is worth the exercise's points."""
    cells = [cell for cell in notebook("solutions", exercise.chapter)["cells"] if cell["cell_type"] == "code"]
    tags = {cell["id"]: cell["metadata"].get("nbgrader", {}) for cell in cells}
    assert all(tag.get("schema_version", 3) == 3 for tag in tags.values())
    grade_ids = [tag["grade_id"] for tag in tags.values() if tag]
    assert len(set(grade_ids)) == len(grade_ids)
    (check,) = [cell for cell in cells if f'check("{exercise.id}", {exercise.function})' in nb.source(cell)]
    assert tags[check["id"]] == {
        "grade": True,
        "grade_id": f"check_{exercise.id}",
        "locked": True,
        "points": exercise.points,
        "schema_version": 3,
        "solution": False,
        "task": False,
    }
    (answer,) = [cell for cell in cells if tags[cell["id"]].get("grade_id") == exercise.function]
    assert tags[answer["id"]]["solution"] is True and "### BEGIN SOLUTION" in nb.source(answer)


def test_ids_are_unique() -> None:
    assert len({exercise.id for exercise in EXERCISES}) == len(EXERCISES)


def test_an_exercise_that_this_system_cannot_run_says_so() -> None:
    exercise = replace(EXERCISES[0], needs="no_such_module")
    result = grade(exercise, from_notebook("solutions", exercise))
    assert result.earned == 0 and "needs no_such_module, which this system does not have" in str(result)
