"""The routes of the server. Each line of work is elsewhere, in the order in which a request meets it:

guard.py       its key and the size of its body
protocol.py    its JSON, and the `SamplingParams` that it means
service.py     tokens, a replica, and the reply; generation.py and registry.py below it
replies.py     the JSON of OpenAI
streams.py     how it leaves, and what happens if the client leaves first
failures.py    what it gets instead

live.py        the page at /
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response

from minillm.engine.loop import EngineDeadError
from minillm.errors import RequestError
from minillm.serving.docs import documentation
from minillm.serving.failures import (
    Failure,
    JSONResponse,
    NoModelError,
    TooLongError,
    failure_of,
    of_the_user,
)
from minillm.serving.guard import BoundedBody, LastAnswer, NeedsKey
from minillm.serving.live import LivePage
from minillm.serving.metrics import CONTENT_TYPE, exposition
from minillm.serving.protocol import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    FieldError,
    GenerationBody,
    TokenizeBody,
)
from minillm.serving.registry import Registry, UnavailableError
from minillm.serving.service import Service
from minillm.serving.settings import Settings
from minillm.serving.streams import ClientGoneError, EventStream, unless_disconnected

ANSWERED = (
    RequestValidationError,
    HTTPException,
    NoModelError,
    TooLongError,
    UnavailableError,
    EngineDeadError,
    FieldError,
    RequestError,
)


def create_app(registry: Registry, settings: Settings | None = None) -> FastAPI:
    """Return the ASGI application that serves the models of `registry`. `app.state.service` is its service."""
    settings = settings or Settings()
    service = Service(registry, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="minillm", version=version("minillm"), docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.service = service
    app.add_middleware(BoundedBody, settings=settings)
    if settings.api_key is not None:
        app.add_middleware(NeedsKey, key=settings.api_key)
    app.add_middleware(LastAnswer, settings=settings)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors, allow_methods=["*"], allow_headers=["*"]
        )
    for kind in ANSWERED:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(ClientGoneError, _nobody_to_answer)
    _add_generation(app, service)
    _add_tokens(app, service)
    _add_information(app, service)
    app.state.live = LivePage(registry, settings)
    app.include_router(app.state.live.router)
    return app


async def _answer(request: Request, error: Exception) -> Response:
    return failure_of(error).response()


async def _nobody_to_answer(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # the number that nginx logs for this


def _add_generation(app: FastAPI, service: Service) -> None:
    async def generate(body: GenerationBody, request: Request) -> Response:
        if not body.stream:
            return JSONResponse(await unless_disconnected(request.receive, service.complete(body)))
        generation, reply = await unless_disconnected(request.receive, service.start(body))
        return EventStream(service.events(generation, reply), partial(service.release, generation))

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Continue a prompt."""
        return await generate(body, request)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """Answer a conversation."""
        return await generate(body, request)

    @app.post("/v1/embeddings")
    async def embeddings() -> Response:
        """Refuse: the models of this server generate text."""
        return Failure(
            400, "embeddings are not supported: the models of this server generate text"
        ).response()


def _add_tokens(app: FastAPI, service: Service) -> None:
    @app.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> Response:
        """Return the token ids of a text or a conversation."""
        return JSONResponse(await service.tokenize(body))

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> Response:
        """Return the text of token ids."""
        llm = service.replica(body.model).llm
        with of_the_user(body):
            text = await service.in_pool(lambda: llm.decode(body.tokens))
        return JSONResponse({"prompt": text})


def _add_information(app: FastAPI, service: Service) -> None:
    registry = service.registry
    write_metrics = exposition(registry)

    def card(name: str) -> dict[str, Any]:
        length = service.replica(name).llm.config.max_model_len
        return {
            "id": name,
            "object": "model",
            "created": registry.created,
            "owned_by": "minillm",
            "root": name,
            "parent": None,
            "max_model_len": length,
        }

    @app.get("/v1/models")
    async def models() -> Response:
        """List the models."""
        return JSONResponse({"object": "list", "data": [card(name) for name in registry.replicas]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        """Describe one model."""
        return JSONResponse(card(name))

    @app.get("/health")
    async def health() -> Response:
        """Tell whether every engine runs: 200 if so, else 503."""
        engines = {f"{replica.name}/{replica.index}": replica.health for replica in registry}
        healthy = all(state == "ok" for state in engines.values()) and not service.draining
        status = "shutting down" if service.draining else "ok" if healthy else "unhealthy"
        return JSONResponse({"status": status, "engines": engines}, 200 if healthy else 503)

    @app.get("/version")
    async def own_version() -> Response:
        """Return the version of minillm."""
        return JSONResponse({"version": version("minillm")})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Write the metrics for Prometheus."""
        return Response(write_metrics(), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(documentation(app.openapi()))
