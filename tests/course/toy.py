"""An exercise for testing the machinery with: double(x) is 2 x, for a tensor [T, D] (loaded in the worker by name)."""

import torch

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Exercise

DOUBLE = Exercise(
    "99.1",
    "Double",
    function="double",
    points=3,
    minutes=1,
    difficulty=1,
    hints=("Think of two.", "The result minus x is x.", "return 2 * x"),
    megabytes=500,
)


@DOUBLE.part("values", points=1)
def values(double: Answer) -> None:
    x = expect.randn(3, 2)
    out = double(x)
    expect.close(out, 2 * x, "T D", mistakes={"this is the square": x * x})
    expect.own_memory(out, x=x)


@DOUBLE.part("an empty tensor", points=1)
def empty(double: Answer) -> None:
    expect.close(double(torch.zeros(0, 2)), torch.zeros(0, 2), "T D")


@DOUBLE.part("in a process of its own", points=1, alone=True)
def alone(double: Answer) -> None:
    expect.close(double(torch.ones(2, 2)), torch.full((2, 2), 2.0), "T D")
