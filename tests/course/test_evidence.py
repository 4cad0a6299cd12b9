"""One line of evidence counts what is equal and names the first difference."""

import pytest

from minillm.course.evidence import same


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
