"""A hole is empty, wrong or right, and the chapter goes on in each case."""

import time
from collections.abc import Callable

import pytest

from minillm.course import hole
from minillm.course.exercise import Wrong


def double(x: int) -> int:
    return 2 * x


def check(function: Callable[[int], int]) -> None:
    if function(3) == 9:
        raise Wrong("3 gave 9: that is the square.")
    if function(3) != 6:
        raise Wrong(f"3 gave {function(3)}. It should give 6.")


@pytest.fixture(autouse=True)
def one_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hole, "find", lambda hole_id: hole.Hole(hole_id, double, check))


def test_an_empty_hole_says_so_and_the_chapter_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def double(x: int) -> int:
        """Return twice x."""
        return ...  # type: ignore[return-value]

    assert hole.fill("99.double", double)(4) == 8
    said = capsys.readouterr().out
    assert "99.double is empty" in said and "`double`" in said


def test_a_second_check_of_an_unfilled_hole_does_not_praise_the_chapters_function(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def mine(x: int) -> int:
        return ...  # type: ignore[return-value]

    second = hole.fill("99.double", hole.fill("99.double", mine))
    said = capsys.readouterr().out
    assert (
        second(4) == 8
        and "✓" not in said
        and "is the chapter's own now. Run the cell with your function" in said
    )


def test_a_right_answer_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    def mine(x: int) -> int:
        return x + x

    assert hole.fill("99.double", mine) is mine
    assert "✓" in capsys.readouterr().out


def test_a_wrong_answer_is_named_and_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    def square(x: int) -> int:
        return x * x

    assert hole.fill("99.double", square)(4) == 8
    assert "that is the square" in capsys.readouterr().out


def test_an_exception_is_told_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(x: int) -> int:
        y = x
        return y.nothing  # type: ignore[attr-defined,no-any-return]

    assert hole.fill("99.double", broken)(4) == 8
    line = broken.__code__.co_firstlineno + 2
    said = capsys.readouterr().out
    assert "AttributeError" in said and f"line {line} of your cell" in said


def test_a_loop_without_end_is_stopped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hole, "SECONDS", 0.2)
    monkeypatch.setattr(hole, "PATIENCE", 20)

    def forever(x: int) -> int:
        while True:
            x += 1

    began = time.process_time()
    assert hole.fill("99.double", forever)(4) == 8
    assert time.process_time() - began < 2  # of the CPU; the limit by the clock is 4 s
    assert "Does the loop end?" in capsys.readouterr().out

    def asleep(x: int) -> int:
        time.sleep(100)
        return x

    monkeypatch.setattr(hole, "PATIENCE", 1)
    assert hole.fill("99.double", asleep)(4) == 8
    assert "Does the loop end?" in capsys.readouterr().out


def test_a_busy_machine_is_not_the_readers_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting takes no time of the CPU."""
    monkeypatch.setattr(hole, "SECONDS", 0.1)
    monkeypatch.setattr(hole, "PATIENCE", 1000)

    def slow(x: int) -> int:
        time.sleep(0.15)
        return 2 * x

    assert hole.fill("99.double", slow) is slow
    assert "is right" in capsys.readouterr().out


def test_unknown_holes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ValueError, match="No chapter '77'"):
        hole.find("77.x")
