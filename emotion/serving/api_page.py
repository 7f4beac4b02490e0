"""The page /docs: every operation of the OpenAPI description, without a script or anything from outside."""

from collections.abc import Iterator
from html import escape
from typing import Any

WEBSOCKET_TEXT = """\
GET /ws (WebSocket, protocol version 1). Send each frame as one binary message: a JPEG, PNG or WebP.
The answers are JSON texts:

on connection      {"type": "hello", "version": 1, "ready": true, "model": "...", "classes": [...],
                    "labels": {"en": [...], "ko": [...]},
                    "limits": {"frame_bytes": N, "frame_pixels": N, "frames_per_s": N, ...}}
for a frame        {"type": "result", "frame": n, "dropped": d, "width": W, "height": H, "ms": {...},
                    "faces": [{"id": 1, "box": [left, top, width, height], "label": "happy",
                               "probabilities": [...], "smoothed": [...]}]}
for a refused one  {"type": "error", "code": "not_an_image", "frame": n,
                    "message": {"en": "...", "ko": "..."}}

frame is the number of your message, from 1; dropped counts your frames that a newer one replaced.
Close codes: 1003 a text message, 1008 too many frames for too long, 1009 a frame over the byte limit,
1012 the server goes down (connect again), 1013 too many connections (try later). A foreign Origin gets 403.
"""


def api_page(openapi: dict[str, Any]) -> str:
    """HTML of an OpenAPI description and of the WebSocket, which OpenAPI has no words for."""
    info = openapi["info"]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(info['title'])}: API</title></head><body>",
            f"<h1>{escape(info['title'])}: API</h1><p>{escape(info.get('description', ''))}</p>",
            '<p>Machine-readable: <a href="/openapi.json">/openapi.json</a></p>',
            *_operations(openapi),
            f"<h2>Live analysis</h2><pre>{escape(WEBSOCKET_TEXT)}</pre></body></html>",
        ]
    )


def _operations(openapi: dict[str, Any]) -> Iterator[str]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
            yield f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p><dl>"
            for status, answer in operation.get("responses", {}).items():
                yield f"<dt>{escape(status)}</dt><dd>{escape(answer['description'])}</dd>"
            yield "</dl>"
