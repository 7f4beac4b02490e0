"""The application: pages, live analysis, uploads, health, metrics."""

import contextlib
import importlib.metadata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from emotion.serving.api_page import api_page
from emotion.serving.config import STATIC_DIR
from emotion.serving.guard import Guard
from emotion.serving.metrics import CONTENT_TYPE
from emotion.serving.prediction import predict
from emotion.serving.refusals import Refusal
from emotion.serving.service import Service
from emotion.serving.session import CameraSession
from emotion.serving.uploads import memory_file, receive_file
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
MOST_UPLOADS = 2  # received and analysed at a time
_UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
_UPLOAD_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The faces of a picture, or of five frames a second of a video."},
    400: {"description": "No file in the form."},
    403: {"description": "A page of a foreign origin."},
    413: {"description": "Too many bytes, pixels or seconds."},
    415: {"description": "Neither a picture nor a video."},
    503: {"description": "No model yet, too many uploads at a time, or going down."},
}


def make_app(service: Service, static_dir: Path = STATIC_DIR) -> Any:
    """The ASGI application of a service, with host, origin and security headers seen to.

    Args:
        service: Its workers are started and ended with the application.
        static_dir: Holds index.html and what it needs.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
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
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"])
    app.add_exception_handler(Refusal, _answer_refusal)
    app.mount("/static", StaticFiles(directory=static_dir, check_dir=False), name="static")
    _add_pages(app, static_dir)
    _add_states(app, service)
    _add_analysis(app, service)
    return Guard(app, service.config)


async def _answer_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal), "registered for nothing else"
    headers = {"Retry-After": "5"} if refusal.status == 503 else {}
    # What is left of the body stays unread: the connection cannot serve another request.
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
    @app.get("/health", responses={200: {"description": "The server runs."}})
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @app.get(
        "/ready",
        responses={
            200: {"description": "Pictures are analysed."},
            503: {"description": "They are not: no model, starting, or going down."},
        },
    )
    async def ready() -> JSONResponse:
        """Whether pictures are analysed; without a model, how to train one."""
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        if not service.has_model:
            return JSONResponse({"status": "no_model", "message": HOW_TO_TRAIN}, 503)
        return JSONResponse({"status": "stopping" if service.is_stopping else "starting"}, 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts and latencies since the start, for Prometheus."""
        return Response(service.metrics_text(), media_type=CONTENT_TYPE)


def _add_analysis(app: FastAPI, service: Service) -> None:
    num_uploads = 0

    @app.websocket("/ws")
    async def live(websocket: WebSocket) -> None:
        await CameraSession(websocket, service).run()

    @app.get("/api/model")
    async def model() -> dict[str, Any]:
        """Classes, their names in English and Korean, and the server's limits."""
        return service.hello()

    @app.post("/api/predict", openapi_extra=_UPLOAD_FORM, responses=_UPLOAD_ANSWERS)
    async def upload(request: Request) -> JSONResponse:
        """Analyses the picture or video in the form's field `file`; it lives in memory for that time."""
        nonlocal num_uploads
        if not service.has_model:
            raise Refusal("no_model")
        if num_uploads >= MOST_UPLOADS:
            raise Refusal("busy")
        num_uploads += 1
        try:
            answer = await _predict_upload(service, request)
        except Refusal as refusal:
            service.metrics.count("uploads_refused_total", label=f'code="{refusal.code}"')
            service.logger.info("upload refused: %s", refusal.code)
            raise
        finally:
            num_uploads -= 1
        service.metrics.count("uploads_total", label=f'kind="{answer["kind"]}"')
        return JSONResponse(answer)


async def _predict_upload(service: Service, request: Request) -> dict[str, Any]:
    try:
        with memory_file() as file:
            await receive_file(request, file, service.config.max_upload_bytes)
            answer = await predict(service, file, request.is_disconnected)
    except ClientDisconnect:
        raise Refusal("too_slow") from None
    except (Refusal, OSError) as error:
        if isinstance(error, OSError):
            service.logger.error("an upload could not be kept: %s", one_line(error))
            raise Refusal("busy") from None
        raise
    service.logger.info("upload: %s, %.0f ms", answer["kind"], answer["ms"]["total"])
    return answer
