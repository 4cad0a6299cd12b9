"""The feed: what an engine does, as pieces of a recording, for any number of pages that come and go.

An engine is recorded only while a page watches it. One thread reads the engine's trace 20 times per second and empties
it. The recording keeps the last steps, so memory is bounded in a server that runs for weeks. Each page has a cursor,
the place up to which it was sent the recording. Nothing is queued for a slow page: its next piece has everything since
its cursor, or the whole recording if the events after its cursor are gone.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

from minillm.llm import LLM
from minillm.measure.trace import Snapshot, Trace
from minillm.player.recording import Recording

log = logging.getLogger("minillm.serving")
SETTINGS = ("block_size", "max_num_batched_tokens", "max_num_seqs", "scheduling_policy", "kv_cache")
INTERVAL = 0.05  # seconds between two pieces
LINGER = 10.0  # seconds without a page until the engine is no longer watched: a page that reloads finds the same steps
MAX_PAGES = 100  # of one engine
SPAN = 30_000  # numbers in the events between two snapshots: about 2000 steps of one request, or 200 of 32


@dataclass(frozen=True)
class Cursor:
    """The place up to which a page has a recording. `first` is the number of the first event that it has."""

    recording: str
    first: int
    num_events: int
    num_words: int


class TooManyPagesError(RuntimeError):
    """A page that came while `MAX_PAGES` others were watching the same engine."""


class Feed:
    """Records the engine of `llm` while it is `watched`, in a thread of its own. `feed_of` returns an LLM's feed."""

    def __init__(self, llm: LLM, span: int = SPAN) -> None:
        self._weak, self._span = ref(llm), span
        self._lock = threading.Lock()  # held while the recording is read, and while pages come or go
        self._pages: dict[object, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._left = 0.0  # when the last page left
        self._source: Trace | None = None  # the engine's trace
        self._num_read = 0  # records of the source, if it is the LLM's own and therefore not emptied
        self._name = ""
        self._recording: Recording | None = None
        self._pieces: dict[Cursor | None, tuple[Cursor, str]] = {}  # since the last record was read

    @contextmanager
    def watched(self, on_news: Callable[[], None]) -> Iterator[None]:
        """Record the engine inside this block. The feed's thread calls `on_news` when there is something to read.

        Raises `TooManyPagesError` if 100 pages are watching.
        """
        page = object()
        with self._lock:
            if len(self._pages) >= MAX_PAGES:
                raise TooManyPagesError(f"{MAX_PAGES} pages watch this engine already: close one of them")
            self._pages[page] = on_news
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="minillm-feed", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._pages[page]
                self._left = time.monotonic()

    def news(self, cursor: Cursor | None) -> tuple[Cursor, str] | None:
        """Return what a page with this cursor lacks, as JSON, and its next cursor. None if there is nothing new.

        The JSON is a piece of the recording, with `whole` if the page must forget what it has. Then `same` says
        whether it is the recording of which the page has an older part.
        """
        with self._lock:
            recording = self._recording
            if recording is None:
                return None
            now = Cursor(self._name, recording.first, recording.num_events, recording.num_words)
            if now == cursor:
                return None
            if cursor not in self._pieces:
                self._pieces[cursor] = now, self._piece(recording, cursor)
            return self._pieces[cursor]

    def close(self) -> None:
        """Stop the thread now if no page is left. The engine is no longer recorded."""
        with self._lock:
            self._left = float("-inf")
            thread = None if self._pages else self._thread
        if thread is not None:
            thread.join()

    def _llm(self) -> LLM:
        llm = self._weak()
        if llm is None:
            raise RuntimeError("the LLM is gone")
        return llm

    def _piece(self, recording: Recording, cursor: Cursor | None) -> str:
        same = cursor is not None and cursor.recording == self._name
        if cursor is not None and same and cursor.first == recording.first:
            piece = recording.since(cursor.num_events, cursor.num_words)
        else:
            piece = {**recording.whole(), "whole": True, "same": same}
        return json.dumps(piece, separators=(",", ":"))

    def _run(self) -> None:
        while not self._deserted():
            time.sleep(INTERVAL)
            try:
                self._read()
            except RuntimeError:  # the engine has ended; another one may take its place
                self._source = None
            except Exception:
                log.exception("the live page lost the thread of the engine, and begins again")
                self._source = None

    def _deserted(self) -> bool:
        """Return whether the last page left long ago. Then stop watching the engine."""
        with self._lock:
            if self._pages or time.monotonic() - self._left < LINGER:
                return False
            self._thread, self._recording = None, None
            source, self._source = self._source, None
        with suppress(RuntimeError):  # the engine has ended
            if source is not None and not self._llm().config.trace:
                self._llm().watch(None)
        return True

    def _read(self) -> None:
        """Read the records that are new, and tell the pages."""
        if self._source is None or self._llm().engine.trace is not self._source:
            self._begin()
        source, own = self._source, self._llm().config.trace
        assert source is not None and self._recording is not None
        records = source[self._num_read :]
        if own:
            self._num_read += len(records)
        else:
            del source[: len(records)]
        if not records:
            return
        with self._lock:
            self._recording.trace += records
            self._recording.extend()
            self._pieces.clear()
            pages = list(self._pages.values())
        for on_news in pages:
            on_news()
        if self._recording.size > self._span:
            self._llm().watch(source)  # one more snapshot

    def _begin(self) -> None:
        """Begin a recording with a snapshot. An LLM that has a trace of its own keeps all of its records."""
        llm = self._llm()
        source = llm.engine.trace if llm.config.trace else Trace()
        assert source is not None
        begin = len(source)
        llm.watch(source)
        # A trace of the LLM's own may have got other records before the snapshot.
        while not isinstance(source[begin], Snapshot):
            begin += 1
        self._num_read = begin
        settings = {name: getattr(llm.config, name) for name in SETTINGS}
        token_text = None if llm.tokenizer is None else llm.tokenizer.token_text
        with self._lock:
            self._source, self._name = source, uuid.uuid4().hex
            self._recording = Recording(Trace(), settings, token_text, rolling=True)


def feed_of(llm: LLM) -> Feed:
    """Return the feed of an LLM. It has only one, even if several servers serve it."""
    with _making:
        if llm not in _feeds:
            _feeds[llm] = Feed(llm)
        return _feeds[llm]


_feeds: WeakKeyDictionary[LLM, Feed] = WeakKeyDictionary()
_making = threading.Lock()
