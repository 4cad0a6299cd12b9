import pytest

from minillm.serving.server import Server
from tests.engine import tiny


@pytest.fixture(scope="module")
def server():
    llm = tiny.llm()
    llm.name = "tiny"
    with Server(llm) as server:
        yield server
    llm.close()
