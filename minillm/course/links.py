"""The relative links of a notebook that is copied to another folder.

GitHub and JupyterLab resolve a link from the folder of its notebook. A copy therefore needs other links to lead to
the same files.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

from minillm.course import notebook as nb

# Code is matched first and kept, because `kernel[grid](x)` is no link.
_LINK = re.compile(
    r"(?P<code>(?P<fence>`+).*?(?P=fence))"
    r"|(?P<before>\]\(<?|\b(?:src|href)=[\"']|^ {0,3}\[[^\]\n]+\]:[ ]*<?)"
    r"(?P<path>(?![a-zA-Z][\w+.-]*:|[/#?])[^\s\"'<>)#?]+)",
    re.DOTALL | re.MULTILINE,
)


def relink(notebook: nb.Notebook, folder: Path, new_folder: Path, place: Callable[[Path], Path]) -> None:
    """Rewrite the relative links in the Markdown cells, in place.

    `folder` is where the links were written and `new_folder` is where the copy will be. `place` maps the file that a
    link meant to the file that it should lead to, for example to the learner's copy of a chapter.
    """

    def moved(match: re.Match[str]) -> str:
        if match["code"]:
            return match[0]
        target = place(Path(os.path.normpath(folder / unquote(match["path"]))))
        return match["before"] + quote(Path(os.path.relpath(target, new_folder)).as_posix())

    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _LINK.sub(moved, nb.source(cell)).splitlines(keepends=True)
