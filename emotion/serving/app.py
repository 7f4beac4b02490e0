"""The application: pages, live analysis, uploads, health, metrics."""

import asyncio
import contextlib
import importlib.metadata
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from emotion.serving import openapi
from emotion.serving.config import STATIC_DIR
from emotion.serving.connections import address_key
from emotion.serving.guard import Guard
from emotion.serving.memory import MemoryFile, memory_file
from emotion.serving.metrics import CONTENT_TYPE
from emotion.serving.prediction import PictureAnswer, VideoAnswer, predict
from emotion.serving.refusals import Refusal
from emotion.serving.service import Service
from emotion.serving.session import CameraSession
from emotion.serving.uploads import receive_file
from facevox.errors import one_line

DESCRIPTION = (
    "Facial expressions in pictures, live and uploaded. An expression is not a feeling. Nothing that is sent "
    "here is stored or logged."
)
HOW_TO_TRAIN = {
    "en": "No trained model: run make emotion-preprocess emotion-train, or make demo; then start the server "
    "again.",
    "ko": "학습된 모델이 없습니다. make emotion-preprocess emotion-train 또는 make demo를 실행한 뒤 "
    "서버를 다시 시작하세요.",
}
WEBSOCKET_TEXT = """\
GET /ws (WebSocket, protocol version 1). Send each frame as one binary message: a JPEG, PNG or WebP
(HEIC, AVIF, BMP, TIFF and GIF are read, too).
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
Close codes: 1003 a text message, 1008 answers not read, too costly or empty frames, 1009 one over the byte
limit, 1012 the server goes down (connect again), 1013 too many connections (try later). Instead of a
connection: 401 without the token, 403 a foreign Origin, 421 a foreign Host, 503 too many of an address.
"""
TOKEN = ("unauthorized",)  # the refusal of every path but /health
MOST_ANALYSED = 2  # uploads at a time
MOST_RECEIVED = 8  # uploads that arrive at a time, however slowly; each may take MAX_UPLOAD_BYTES of memory
SHARE_OF_ADDRESS = 0.5  # of both, so that one client leaves room for others


def make_app(service: Service, static_dir: Path = STATIC_DIR) -> Guard:
    """The ASGI application of a service, with its checks of host and origin and its security headers.

    Args:
        service: Its workers are started and ended with the application.
        static_dir: Has index.html and the files that it loads.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        service.start()
        # For the protocols, which have uvicorn's state alone.
        yield {"connections": service.connections, "loop_time": service.loop_time}
        await service.stop()

    app = FastAPI(
        title="facevox emotion",
        description=DESCRIPTION,
        version=importlib.metadata.version("facevox"),
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    origins = list(service.config.allowed_origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization"],
        )
    app.add_exception_handler(Refusal, _answer_refusal)
    app.mount("/static", StaticFiles(directory=static_dir, check_dir=False), name="static")
    _add_pages(app, static_dir)
    _add_states(app, service)
    _add_analysis(app, service)
    return Guard(app, service.config)


async def _answer_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal), "registered for nothing else"
    headers = {"Retry-After": "5"} if refusal.status == 503 else {}
    # The rest of the body stays unread: the connection cannot serve another request.
    headers["Connection"] = "close"
    return JSONResponse(refusal.as_http(), refusal.status, headers)


def _add_pages(app: FastAPI, static_dir: Path) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        index = static_dir / "index.html"
        if not index.is_file():
            return PlainTextResponse("The page is missing: emotion/static/index.html", 404)
        return FileResponse(index)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()))


def _add_states(app: FastAPI, service: Service) -> None:
    ready_answers = openapi.answers("Pictures are analysed.", openapi.READY, TOKEN)
    refused = ready_answers[503]["content"]["application/json"]
    refused["schema"] = {"anyOf": [openapi.NOT_READY, refused["schema"]]}
    ready_answers[503]["description"] += " No model, starting, failed to start, or going down."
    metrics_answers = openapi.answers("Prometheus's text format.", {}, TOKEN)
    metrics_answers[200]["content"] = {"text/plain": {"schema": {"type": "string"}}}

    @app.get("/health", responses=openapi.answers("The server runs.", openapi.HEALTH))
    async def health() -> dict[str, str]:
        """True as long as the server runs."""
        return {"status": "ok"}

    @app.get("/ready", responses=ready_answers)
    async def ready() -> JSONResponse:
        """Readiness: pictures are analysed; without a model, a text on how to train one."""
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        if not service.has_model:
            return JSONResponse({"status": "no_model", "message": HOW_TO_TRAIN}, 503)
        if service.failure and not service.is_stopping:
            return JSONResponse({"status": "failed", "reason": service.failure}, 503)
        return JSONResponse({"status": "stopping" if service.is_stopping else "starting"}, 503)

    @app.get("/metrics", response_class=PlainTextResponse, responses=metrics_answers)
    async def metrics() -> Response:
        """Counts and latencies since the start, for Prometheus."""
        return Response(service.metrics_text(), media_type=CONTENT_TYPE)


def _add_analysis(app: FastAPI, service: Service) -> None:
    uploads = _Uploads(service)
    upload_answers = openapi.answers(
        "The faces of a picture, or of five frames a second of a video.",
        openapi.UPLOAD,
        (*openapi.UPLOAD_REFUSALS, *TOKEN),
    )

    @app.websocket("/ws")
    async def live(websocket: WebSocket) -> None:
        await CameraSession(websocket, service).run()

    @app.get("/api/model", responses=openapi.answers("The greeting of /ws.", openapi.MODEL, TOKEN))
    async def model() -> dict[str, Any]:
        """Classes, their names in English and Korean, and the server's limits."""
        return service.hello()

    @app.post("/api/predict", openapi_extra=openapi.UPLOAD_FORM, responses=upload_answers)
    async def upload(request: Request) -> JSONResponse:
        """Analyses the picture or video in the form's field `file`; it lives in memory for that time."""
        if not service.has_model:
            raise Refusal("no_model")
        try:
            answer = await uploads.answer(request)
        except Refusal as refusal:
            service.metrics.count("uploads_refused_total", label=f'code="{refusal.code}"')
            service.logger.info("upload refused: %s", refusal.code)
            raise
        service.metrics.count("uploads_total", label=f'kind="{answer["kind"]}"')
        return JSONResponse(answer)


class _Uploads:
    """Receives many files at a time and analyses few, so that a slow sender keeps nobody waiting."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._received: Counter[str] = Counter()
        self._analysed: Counter[str] = Counter()

    async def answer(self, request: Request) -> PictureAnswer | VideoAnswer:
        """The answer to an upload.

        Raises:
            Refusal: It cannot be analysed, or not now.
        """
        address = address_key(request.client.host) if request.client else ""
        try:
            with memory_file() as file:
                self._check_room(self._analysed, MOST_ANALYSED, address)
                with self._place(self._received, MOST_RECEIVED, address):
                    await self._receive(request, file)
                with self._place(self._analysed, MOST_ANALYSED, address):
                    answer = await predict(self._service, file, request.is_disconnected)
        except ClientDisconnect:
            raise Refusal("too_slow") from None
        except OSError as error:
            self._service.logger.error("an upload could not be kept: %s", one_line(error))
            raise Refusal("busy") from None
        self._service.logger.info("upload: %s, %.0f ms", answer["kind"], answer["ms"]["total"])
        return answer

    def _check_room(self, counts: Counter[str], most: int, address: str) -> None:
        if counts.total() >= most or counts[address] >= most * SHARE_OF_ADDRESS:
            raise Refusal("busy")

    @contextlib.contextmanager
    def _place(self, counts: Counter[str], most: int, address: str) -> Iterator[None]:
        """One of `most` places; `counts` has those that each address has taken."""
        self._check_room(counts, most, address)
        counts[address] += 1
        try:
            yield
        finally:
            counts[address] -= 1
            counts += Counter()  # drops addresses without a place

    async def _receive(self, request: Request, file: MemoryFile) -> None:
        going_down = self._service.going_down
        receiving = asyncio.create_task(receive_file(request, file, self._service.config.max_upload_bytes))
        stopping = asyncio.create_task(going_down.wait())
        try:
            await asyncio.wait((receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                raise Refusal("stopping")
            receiving.result()
        finally:
            receiving.cancel()
            stopping.cancel()
            # After this nobody writes the file any more.
            await asyncio.gather(receiving, stopping, return_exceptions=True)


def api_page(openapi: dict[str, Any]) -> str:
    """The page /docs, without a script or anything from outside.

    HTML of an OpenAPI description and of the WebSocket, which OpenAPI cannot describe.
    """
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
