"""Embeddings over HTTP: a WSGI application, with no framework.

    gunicorn --chdir examples --preload --workers 2 'server:embedder("FOLDER or hub id")'

    POST /embed   {"texts": ["...", ...]}  ->  {"vectors": [[...], ...]}
    GET /health                            ->  {"dim": 384, "max_length": 256}

A request that cannot be served is answered with {"error": "..."} and a status of 400 to 413. JSON
holds a float32 exactly: whoever reads the numbers back as float32 has the bits that `encode` gave.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import headwise as hw

MAX_BYTES = 1 << 20  # of a request's body
MAX_TEXTS = 256

Environ = dict[str, Any]


class Refused(Exception):
    """A request that is not served: a status, why, and a header that the status asks for."""

    def __init__(self, status: HTTPStatus, why: str, *headers: tuple[str, str]):
        super().__init__(why)
        self.status = status
        self.headers = headers


def embedder(name: str, precision: str = "float32") -> Callable[..., Iterable[bytes]]:
    """Load a model and return the application that embeds with it."""
    model = hw.TextEncoder.from_pretrained(name, precision)

    def embed(environ: Environ) -> dict[str, Any]:
        texts = read_texts(environ)
        try:
            vectors = model.encode(texts, on_truncate="ignore")
        except (TypeError, ValueError) as error:  # one is no string, or not valid Unicode
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
        return {"vectors": vectors.tolist()}

    def health(environ: Environ) -> dict[str, Any]:
        return {"dim": model.dim, "max_length": model.max_length}

    routes = {"/embed": ("POST", embed), "/health": ("GET", health)}

    def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, headers = HTTPStatus.OK, [("Content-Type", "application/json")]
        try:
            answer = route(routes, environ)(environ)
        except Refused as refused:
            status, answer = refused.status, {"error": str(refused)}
            headers += refused.headers
        body = json.dumps(answer).encode()
        headers.append(("Content-Length", str(len(body))))
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    return application


def route(routes: dict[str, tuple[str, Callable]], environ: Environ) -> Callable:
    """Return what answers the request."""
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path not in routes:
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no {path}: there are {', '.join(routes)}")
    wanted, answer = routes[path]
    if method != wanted:
        why = f"the method is {method}: {path} takes {wanted}"
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, why, ("Allow", wanted))
    return answer


def read_texts(environ: Environ) -> list[str]:
    """Return the texts of a request, not more of them than is allowed."""
    try:
        value = json.loads(read_body(environ))
    except (ValueError, RecursionError) as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from None
    texts = value.get("texts") if isinstance(value, dict) else None
    if not isinstance(texts, list):
        raise Refused(HTTPStatus.BAD_REQUEST, 'the body must be {"texts": [...]}')
    if len(texts) > MAX_TEXTS:
        why = f"there are {len(texts)} texts: there may be {MAX_TEXTS}"
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
    return texts


def read_body(environ: Environ) -> bytes:
    """Read what the request announces, if that is no more than is allowed."""
    length = environ.get("CONTENT_LENGTH") or ""
    if not length.isdecimal():
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "the request has no Content-Length")
    if len(length) > 9 or int(length) > MAX_BYTES:
        why = f"the body is longer than {MAX_BYTES} bytes"
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
    return environ["wsgi.input"].read(int(length))
