"""The README's example with the real model prints what the README shows."""

import pytest

from tools import readme

pytestmark = pytest.mark.real


def test_the_output_with_the_real_model_is_current() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.with_outputs(text, real=True) == text, "make readme"
