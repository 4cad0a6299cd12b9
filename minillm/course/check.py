"""`check("01.1", causal_attention)`: mark the learner's function, say what is wrong, keep the best mark.

The function's source is sent to a worker (source.py, sandbox.py), so nothing that the notebook has patched reaches the
check, and nothing that the function does reaches the notebook.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minillm.course import progress, sandbox
from minillm.course.exercise import Exercise, find
from minillm.course.say import say
from minillm.course.source import CannotSend, Source, from_function

SHOWN_OUTPUT = 1_000  # characters of the learner's output that a report shows


@dataclass
class PartResult:
    """A part, whether it was passed, and else what was wrong. It is not tried after an early end."""

    name: str
    points: int
    wrong: str = ""
    tried: bool = False
    passed: bool = False

    @property
    def earned(self) -> int:
        return self.points if self.passed else 0

    def judge(self, wrong: str | None) -> None:
        """Record a verdict: None is a pass. A failed part stays failed, even if a later verdict is a pass."""
        self.passed = wrong is None and (self.passed or not self.tried)
        self.tried, self.wrong = True, self.wrong or wrong or ""


@dataclass
class Report:
    """The result of a check."""

    exercise: Exercise
    parts: list[PartResult]
    output: str = ""
    dropped: int = 0  # characters of output that the worker did not keep
    problem: str = ""  # why the check ended too early, if no part caused it
    notes: list[str] = field(default_factory=list)

    @property
    def earned(self) -> int:
        return sum(part.earned for part in self.parts)

    @property
    def message(self) -> str:
        """Return the first failure, or ""."""
        return next((part.wrong for part in self.parts if part.wrong), self.problem)

    def __str__(self) -> str:
        """Return the report for the learner. It is the same for the same answer, so that a notebook can be tested."""
        title = f"{self.exercise.id} {self.exercise.title}: {self.earned} of {self.exercise.points} points"
        lines, said = [title], ""
        for part in self.parts:
            sign = "✓" if part.passed else "✗" if part.tried else "·"
            lines.append(f"  {sign} {part.name} ({part.points})" + ("" if part.tried else ": not tried"))
            if part.wrong:
                lines.append("      " + ("the same as above" if part.wrong == said else part.wrong))
                said = part.wrong
        if self.problem:
            lines.append(f"  {self.problem}")
        if self.output:
            lines += ["  It printed:", *("    " + line for line in self.output[:SHOWN_OUTPUT].splitlines())]
            if left_out := self.dropped + max(0, len(self.output) - SHOWN_OUTPUT):
                lines.append(f"    … and {left_out:,} characters more, left out")
        if self.earned < self.exercise.points:
            lines.append(f'  hint("{self.exercise.id}") helps, up to three times.')
        return "\n".join(lines + ["  " + note for note in self.notes])


def check(exercise_id: str, answer: Callable[..., Any]) -> None:
    """Check an answer and print the result. Raises ValueError for an unknown exercise."""
    exercise = find(exercise_id)
    try:
        source = from_function(answer, exercise.function)
    except CannotSend as problem:
        say(f"{exercise.id} {exercise.title}: not checked\n  {problem}")
        return
    say(str(mark(exercise, source)))


def mark(exercise: Exercise, source: Source) -> Report:
    """Grade an answer and keep the mark."""
    report = grade(exercise, source)
    best, notice = progress.record(exercise.id, report.earned, exercise.points)
    if best > report.earned:
        report.notes.append(f"Your best mark so far stays: {best} of {exercise.points} points.")
    if notice:
        report.notes.append(notice)
    return report


def grade(exercise: Exercise, source: Source, *, checks: str = "") -> Report:
    """Run an exercise's checks on an answer. `checks` names another module of checks than the exercise's own."""
    if not exercise.can_be_done:
        return Report(
            exercise, [], problem=f"It needs {exercise.needs}, which this system does not have. Leave it out."
        )
    job = sandbox.Job(
        exercise.id,
        checks or exercise.checks,
        source,
        exercise.seconds,
        exercise.megabytes,
        str(Path.cwd()),
        list(sys.path),
    )
    report = Report(exercise, [])
    for event in sandbox.run(job):
        match event:
            case {"parts": parts}:
                report.parts = [PartResult(name, points) for name, points in parts]
            case {"part": name, "wrong": wrong}:
                next(part for part in report.parts if part.name == name).judge(wrong)
            case {"out": text}:
                report.output += text
            case {"dropped": number}:
                report.dropped += number
            case {"end": reason, "ours": True}:
                report.problem = reason
            case {"end": reason} if reason:
                _blame(report, f"{source.function} {reason}")
    return report


def _blame(report: Report, reason: str) -> None:
    """Put an early end down to the part that was running."""
    running = next((part for part in report.parts if not part.tried), None)
    if running is None:
        report.problem = reason
    else:
        running.judge(reason)
