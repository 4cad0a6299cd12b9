"""The page `/docs`: the routes and their fields, from the OpenAPI description, as one page without any script.

FastAPI's own page loads its scripts from another server. This one works without a network.
"""

from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
code { font-size: .95em; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
"""


def documentation(openapi: dict[str, Any]) -> str:
    """Return the page for an OpenAPI description."""
    title = escape(openapi["info"]["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title} {escape(openapi['info']['version'])}</h1>"
        "<p>The API is OpenAI's. Its description for programs: <a href=/openapi.json>/openapi.json</a></p>"
        + "".join(_routes(openapi))
    )


def _routes(openapi: dict[str, Any]) -> Iterator[str]:
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
            yield f"<p>{escape(route.get('description', ''))}</p>"
            content = route.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                yield from _fields(content["schema"], openapi["components"]["schemas"])


def _fields(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    yield "<table>"
    for name, field in schema.get("properties", {}).items():
        needed = "needed" if name in schema.get("required", ()) else ""
        yield f"<tr><td><code>{escape(name)}</code><td>{escape(_type(field))}<td>{needed}"
    yield "</table>"


def _type(field: dict[str, Any]) -> str:
    """Return the type of a field in words; null, which every optional field allows, is left out."""
    if "anyOf" in field:
        return " or ".join(kind for one in field["anyOf"] if (kind := _type(one)) != "null")
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("type") or field.get("$ref", "").rpartition("/")[2] or "any value")
