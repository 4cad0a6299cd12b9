"""`say` prints on every terminal. If it cannot encode ✓ (Windows' cp1252, LANG=C), plain letters replace it."""

import codecs
import sys

_PLAIN = {"✓": "+", "✗": "x", "…": "...", "·": "-"}


def say(text: str) -> None:
    """Print a text, and replace the characters that the standard output cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "minillm.plain").decode(encoding))


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in signs), error.end


codecs.register_error("minillm.plain", _plain)
