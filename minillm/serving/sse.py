"""Server-Sent Events: how a stream of tokens travels in one HTTP response.

An event is one or more lines `data: …` and an empty line. A chunk of bytes from the network may end anywhere, even
between the bytes of one character, so a reader keeps what is not complete yet.

Source: the HTML standard, section 9.2, "Server-sent events". OpenAI's API ends a stream with the data `[DONE]`.
"""

import codecs

DONE = "[DONE]"


def event(data: str) -> bytes:
    """Return one event: a line `data: …` for each line of `data`, and an empty line, in UTF-8."""
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ("".join(f"data: {line}\n" for line in lines) + "\n").encode()


class EventReader:
    """Finds the events in a stream of bytes, however it is divided into chunks."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._line, self._data = "", list[str]()  # the line and the event that are not complete yet
        self._after_cr = self._started = False

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of the events that `chunk` completes. Comments and fields other than `data` are skipped."""
        text = self._decoder.decode(chunk)
        if text and not self._started:
            text, self._started = text.removeprefix("\ufeff"), True
        events = []
        for line in self._complete_lines(text):
            if line:
                self._read_field(line)
            elif self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events

    def _complete_lines(self, text: str) -> list[str]:
        """Return the lines that `text` completes. A line ends with LF, CRLF or CR."""
        if self._after_cr and text:
            text, self._after_cr = text.removeprefix("\n"), False  # the second half of CRLF
        self._after_cr = self._after_cr or text.endswith("\r")
        *lines, self._line = (self._line + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        return lines

    def _read_field(self, line: str) -> None:
        field, _, value = line.partition(":")
        if field == "data":
            self._data.append(value.removeprefix(" "))
