"""The course on the command line: `minillm start`, `check`, `progress` and `reset`."""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from minillm.course import notebook as nb
from minillm.course import progress, workbook
from minillm.course.exercise import Exercise, chapter_exercises, chapters
from minillm.course.say import say
from minillm.course.workbook import chapter_number


def add_commands(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the course's commands, each with its function as the default of `run`."""
    for name, run, what in (
        ("start", _start, "open your own copy of a chapter's exercises"),
        ("check", _check, "check the answers in your copy of a chapter"),
        ("reset", _reset, "begin a chapter's exercises anew; your copy is kept beside them"),
        ("progress", _progress, "what is done, and what comes next"),
    ):
        command = subparsers.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        command.set_defaults(run=run)
        if name != "progress":
            command.add_argument("chapter", type=chapter_number, help="a chapter's number, such as 03")
        if name == "start":
            command.add_argument("--no-open", action="store_true", help="make the copy only")
        if name == "check":
            command.add_argument(
                "--notebook", type=Path, help="check this notebook instead of the one in work/"
            )


def _start(args: argparse.Namespace) -> None:
    path, done = workbook.start(workbook.course_root(), args.chapter)
    say(f"Chapter {args.chapter}: {done}.")
    if args.no_open:
        return
    if importlib.util.find_spec("jupyterlab") is None:
        say(
            "JupyterLab is not installed here: pip install 'minillm[course]', or open the notebook in your editor."
        )
        return
    if server := _server_over(path):
        say(f"JupyterLab runs already: open {path.resolve().relative_to(server)} in it.")
        return
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    ended = subprocess.run([sys.executable, "-m", "jupyterlab", *root, str(path)], check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)


def _server_over(path: Path) -> Path | None:
    """The folder of a running Jupyter server in which `path` lies."""
    from jupyter_server.serverapp import list_running_servers

    folders = (Path(server["root_dir"]).resolve() for server in list_running_servers())
    return next((folder for folder in folders if path.resolve().is_relative_to(folder)), None)


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
