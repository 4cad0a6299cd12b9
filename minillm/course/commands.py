"""The course on the command line: `minillm lab`, `start`, `check`, `progress` and `reset`."""

import argparse
from pathlib import Path
from typing import Any

from minillm.course import lab, progress, workbook
from minillm.course import notebook as nb
from minillm.course.exercise import Exercise, chapter_exercises, chapters
from minillm.course.say import say
from minillm.course.workbook import chapter_number

_INSTALL = "JupyterLab is not installed here. Install it with: pip install 'minillm[course]'"


def add_commands(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the course's commands, each with its function as the default of `run`."""
    for name, run, what in (
        ("lab", _lab, "open the course in JupyterLab, on your own copies of the notebooks"),
        ("start", _start, "open your own copy of a chapter's exercises"),
        ("check", _check, "check the answers in your copy of a chapter"),
        ("reset", _reset, "begin a chapter's exercises again; your old copy is kept next to the new one"),
        ("progress", _progress, "show your marks and the next exercise"),
    ):
        command = subparsers.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        command.set_defaults(run=run)
        if name in ("start", "check", "reset"):
            command.add_argument("chapter", type=chapter_number, help="a chapter's number, such as 03")
        if name == "lab":
            command.add_argument(
                "arguments", nargs="*", help="arguments for JupyterLab, such as: -- --no-browser --port=9000"
            )
        if name == "start":
            command.add_argument("--no-open", action="store_true", help="make the copy, but do not open it")
        if name == "check":
            command.add_argument(
                "--notebook", type=Path, help="check this notebook instead of the one in work/"
            )


def _lab(args: argparse.Namespace) -> None:
    root = workbook.course_root()
    if not lab.installed():
        raise nb.NotebookError(_INSTALL)
    for sentence in workbook.prepare(root):
        say(sentence)
    first = workbook.own_path(root, min((root / "notebooks").glob("*.ipynb"), default=root))
    if not args.arguments and (server := lab.running(first)) and server[0] == root.resolve():
        say(f"JupyterLab is already running on this folder. Its address is\n  {server[1]}")
        return
    lab.become(root, first, args.arguments)


def _start(args: argparse.Namespace) -> None:
    root = workbook.course_root()
    path, done = workbook.start(root, args.chapter)
    say(f"Chapter {args.chapter}: {done}.")
    if args.no_open:
        return
    if not lab.installed():
        say(f"{_INSTALL}\nOr open the notebook in your editor.")
        return
    if server := lab.running(path):
        folder, address = server
        say(
            f"JupyterLab is already running: open {path.resolve().relative_to(folder)} in it, or go to\n  {address}"
        )
        return
    for sentence in workbook.prepare(root):
        say(sentence)
    say(
        f"Opening {path.relative_to(root)} in JupyterLab, in your browser. If no page opens, copy the address below "
        "that begins with http://. Ctrl-C in this terminal ends JupyterLab."
    )
    lab.become(root, path, [])


def _check(args: argparse.Namespace) -> None:
    from minillm.course.check import mark
    from minillm.course.source import CannotSend, from_cells

    exercises = chapter_exercises(args.chapter)
    path = args.notebook or workbook.own_notebook(workbook.course_root(), args.chapter)
    if not args.notebook and not path.exists():
        raise nb.NotebookError(f"you have not begun chapter {args.chapter}: `minillm start {args.chapter}`")
    cells = nb.code_cells(nb.read(path))
    earned = 0
    for exercise in exercises:
        try:
            report = mark(exercise, from_cells(cells, exercise.function))
        except CannotSend as problem:
            say(f"{exercise.id} {exercise.title}: 0 of {exercise.points} points\n  {problem}")
        else:
            say(str(report))
            earned += report.earned
    total = sum(exercise.points for exercise in exercises)
    say(f"Chapter {args.chapter}: {earned} of {total} points")
    if earned < total:
        raise SystemExit(1)


def _reset(args: argparse.Namespace) -> None:
    say(f"Chapter {args.chapter}: {workbook.reset(workbook.course_root(), args.chapter)}.")


def _progress(args: argparse.Namespace) -> None:
    known = progress.load()
    exercises = [exercise for chapter in chapters() for exercise in chapter_exercises(chapter)]
    for exercise in exercises:
        say(_row(exercise, known.marks.get(exercise.id, progress.Mark(0))))
    earned = sum(min(known.marks[e.id].points, e.points) for e in exercises if e.id in known.marks)
    say(f"\n{earned} of {sum(e.points for e in exercises)} points. {_next(exercises, known)}")
    if known.notice:
        say(known.notice)


def _row(exercise: Exercise, mark: progress.Mark) -> str:
    points = min(mark.points, exercise.points)
    sign = "✓" if points == exercise.points else "…" if mark.date else " "
    hints = f"{mark.hints} hint{'s' * (mark.hints > 1)}" if mark.hints else ""
    row = f"{sign} {exercise.id:5} {exercise.title:36.36} {points:2}/{exercise.points:<2} {mark.date:10} {hints}"
    return row.rstrip()


def _next(exercises: list[Exercise], known: progress.Progress) -> str:
    for exercise in exercises:
        if known.marks.get(exercise.id, progress.Mark(0)).points < exercise.points:
            return (
                f"Next: {exercise.id} {exercise.title}, about {exercise.minutes} minutes "
                f"(minillm start {exercise.chapter})"
            )
    return "All exercises are done."
