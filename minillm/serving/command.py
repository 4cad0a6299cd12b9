"""The command `minillm serve`: load the models, share the memory out, and serve.

An option that takes `[NAME=]VALUE` concerns one model, or every model if it names none.
"""

import argparse
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from minillm.errors import RequestError

T = TypeVar("T")
DEFAULT_WAITING = 512  # requests that may wait for each engine
_INSTALL = "the server needs libraries that are not installed: pip install 'minillm[serve]'"


def add_serve(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the command line."""
    serve = commands.add_parser(
        "serve",
        help="serve models with OpenAI's API",
        description="Serve models over HTTP with OpenAI's API: /v1/completions, /v1/chat/completions, /v1/models. "
        "/docs lists all routes and fields, and /metrics has vLLM's metrics.",
        epilog="[NAME=] limits an option to the model NAME; without it, the option holds for every model. "
        "/health, /metrics, /version and /docs need no API key. "
        "Logs have no prompts, headers or paths unless --log-requests is given.",
    )
    serve.set_defaults(run=_serve)
    serve.add_argument(
        "models", nargs="+", metavar="[NAME=]MODEL", help="a bundled name, a folder, a GGUF file or a hub id"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument(
        "--port", type=int, default=8000, help="port, or 0 for a free one (default: %(default)s)"
    )
    serve.add_argument("--device", default="auto", help="auto, cpu or cuda")
    serve.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    for name, value, words in (
        ("draft", "MODEL", "a smaller model that drafts tokens, for example tinytales-draft"),
        ("quantization", "METHOD", "int8, int4, w8a8 or fp8 weights"),
        ("replicas", "N", "engines with the same weights (default: 1)"),
        (
            "kv-cache-memory-bytes",
            "BYTES",
            "memory for the KV cache of each engine (default: an equal share)",
        ),
    ):
        serve.add_argument(f"--{name}", action="append", default=[], metavar=f"[NAME=]{value}", help=words)
    serve.add_argument(
        "--max-model-len", type=int, help="longest text in tokens (default: the model's limit)"
    )
    serve.add_argument(
        "--max-num-seqs", type=int, help="requests that an engine computes at once (default: 64)"
    )
    serve.add_argument(
        "--max-num-waiting",
        type=int,
        default=DEFAULT_WAITING,
        metavar="N",
        help="requests that may wait for each engine; the next one gets status 429 (default: %(default)s)",
    )
    serve.add_argument(
        "--routing",
        choices=("prefix", "load"),
        default="prefix",
        help="choose a replica by its cached prefixes and its load, or by its load alone (default: %(default)s)",
    )
    serve.add_argument(
        "--api-key", metavar="KEY", help="the key that clients must send (default: $MINILLM_API_KEY, or none)"
    )
    serve.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin use the server",
    )
    serve.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="after SIGTERM or Ctrl-C, time for running requests to finish (default: %(default)s)",
    )
    serve.add_argument(
        "--max-body-bytes",
        type=int,
        default=4 * 2**20,
        metavar="N",
        help="longest body (default: %(default)s)",
    )
    serve.add_argument(
        "--live",
        action="store_true",
        help="show the live page at / on every host. It shows the prompts and answers of all users, so by default it "
        "is on only if the server listens on 127.0.0.1 or localhost; with --api-key it asks for the key",
    )
    serve.add_argument("--log-requests", action="store_true", help="log each request, with its prompt")


def by_name(option: str, values: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return what `[NAME=]VALUE` gives to each name. Raises `RequestError` for a name that is not served."""
    found = {}
    for given in sorted(values, key=lambda one: one.partition("=")[0] in names):  # those with names win
        name, _, value = given.partition("=")
        if name in names and value:
            found[name] = value
        elif "=" in given:
            raise RequestError(f"{option} {given}: no model is named {name!r}. There is {', '.join(names)}")
        else:
            found |= dict.fromkeys(names, given)
    return found


def _integers(option: str, values: dict[str, str], least: int = 1) -> dict[str, int]:
    for name, value in values.items():
        if not (value.isascii() and value.isdigit() and int(value) >= least):
            raise RequestError(f"{option} {value} for {name}: give an integer of at least {least}")
    return {name: int(value) for name, value in values.items()}


def named_models(given: Sequence[str]) -> dict[str, str]:
    """Return the model of each name. `NAME=MODEL` gives a name; a folder or file has its last part as its name."""
    models: dict[str, str] = {}
    for one in given:
        name, equals, model = one.partition("=")
        if not equals:
            model = one
            name = Path(one).resolve().name if Path(one).exists() else one
        if not name or not model:
            raise RequestError(f"{one!r} names no model: give MODEL or NAME=MODEL")
        if name in models:
            raise RequestError(f"two models are named {name!r}: give one another name, as NAME=MODEL")
        models[name] = model
    return models


def _serve(args: argparse.Namespace) -> None:
    try:
        from minillm.serving.loading import load
        from minillm.serving.registry import Registry
        from minillm.serving.server import serve
        from minillm.serving.settings import Settings
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("minillm"):
            raise
        raise RequestError(_INSTALL) from error

    _check_limits(args)
    models = named_models(args.models)
    names = list(models)
    engine = {
        name: value
        for name in ("max_model_len", "max_num_seqs", "max_num_waiting")
        if (value := getattr(args, name)) is not None
    }
    settings = Settings(
        api_key=args.api_key or os.environ.get("MINILLM_API_KEY") or None,
        cors=tuple(args.cors),
        max_body_bytes=args.max_body_bytes,
        log_requests=args.log_requests,
        live=args.live or None,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("httpx", "asyncio", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with _bound(args.host, args.port) as listener:  # before the models are loaded, which may take minutes
        llms = load(
            models,
            device=args.device,
            dtype=args.dtype,
            drafts=by_name("--draft", args.draft, names),
            quantization=by_name("--quantization", args.quantization, names),
            replicas=_integers("--replicas", by_name("--replicas", args.replicas, names)),
            cache_bytes=_integers(
                "--kv-cache-memory-bytes",
                by_name("--kv-cache-memory-bytes", args.kv_cache_memory_bytes, names),
            ),
            **engine,
        )
        serve(Registry(llms, args.routing), settings, listener, grace=args.grace)


def _bound(host: str, port: int) -> socket.socket:
    from minillm.serving.server import bound_socket

    try:
        return bound_socket(host, port)
    except OSError as error:
        raise RequestError(
            f"cannot listen on {host}, port {port}: {error.strerror}. Choose another --host or --port"
        ) from error


def _check_limits(args: argparse.Namespace) -> None:
    for option, value, least, most in (
        ("--port", args.port, 0, 65535),
        ("--grace", args.grace, 0, 86400),
        ("--max-body-bytes", args.max_body_bytes, 1, 2**40),
    ):
        if not least <= value <= most:  # true for nan too
            raise RequestError(f"{option} {value}: give a number from {least} to {most}")
