"""The live page in a notebook: a frame where the server answers, and a picture elsewhere."""

import base64

import pytest

pytest.importorskip("fastapi", reason="the server is not installed: pip install -e '.[serve]'")
pytest.importorskip("IPython", reason="IPython is not installed: pip install -e '.[course]'")

from minillm import SamplingParams
from minillm.serving.server import Server
from minillm.viz import server as viz_server
from minillm.viz.server import show
from tests.engine import tiny


class Handle:
    def update(self, content, **_):
        self.content = content


def test_a_page_is_a_frame_and_a_picture_of_what_happened(monkeypatch):
    shown, handle = [], Handle()
    monkeypatch.setattr(viz_server, "display", lambda content, **_: shown.append(content) or handle)
    with tiny.llm(trace=True) as llm, Server(llm) as server:
        with show(server, height=333):
            llm.generate([[5, 6, 7]], SamplingParams(max_tokens=3), use_tqdm=False)
        assert shown[1] == {"text/html": ""}, "nothing has happened yet"
        html = shown[0]["text/html"]
        assert f'"{server.url}"' in html and "height: 333px" in html and "<iframe" not in html
        assert base64.b64decode(handle.content["image/png"]).startswith(b"\x89PNG")
        show(server)._ipython_display_()
        assert "image/png" in shown[-1]


def test_a_server_without_a_trace_is_refused():
    with tiny.llm() as llm, Server(llm) as server, pytest.raises(ValueError, match="trace=True"):
        show(server)
