"""One line of evidence counts what is equal and names the first difference."""

import pytest
import torch

from minillm.course.evidence import close, same


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ([[1, 2], [3]], [[1, 2], [3]], "✓ 3 of 3 tokens"),
        (
            [[1, 2], [3]],
            [[1, 2], [4]],
            "✗ 2 of 3 tokens\n  The first difference is at [1][0]: 3 here, 4 there.",
        ),
        ([1, 2], [1], "✗ 1 of 2 tokens\n  The first difference is at [1]: 2 here, None there."),
        ([], [], "✗ 0 of 0 tokens"),
        (["ab"], ["ac"], "✗ 0 of 1 tokens\n  The first difference is at [0]: 'ab' here, 'ac' there."),
        ([[1]], [1], "✗ 0 of 1 tokens\n  The first difference is at [0]: [1] here, 1 there."),
    ],
)
def test_same(mine: object, theirs: object, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    same(mine, theirs, "tokens")
    assert capsys.readouterr().out.strip() == said


def test_close(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = torch.zeros(3, 2)
    close(theirs + 1e-4, theirs, "rows")
    close(torch.tensor([[0.0, 0.5], [0.0, 0.0], [float("nan"), 0.0]]), theirs, "rows")
    close(theirs[:0], theirs[:0], "rows")
    said = capsys.readouterr().out.splitlines()
    assert said == ["✓ 3 of 3 rows", "✗ 1 of 3 rows", "  The largest difference is nan.", "✗ 0 of 0 rows"]
    with pytest.raises(ValueError, match=r"\[3, 2\] here, \[2, 2\] there"):
        close(theirs, theirs[:2], "rows")
