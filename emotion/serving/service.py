"""The state that all requests share: configuration, workers, counts, clients."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from emotion.live.analysis import read_about, translate_labels
from emotion.live.face_tracks import Face, FaceAnswer, face_json
from emotion.logger_config import get_logger
from emotion.serving.config import ServerConfig
from emotion.serving.connections import Connections
from emotion.serving.loop_time import LoopTime
from emotion.serving.metrics import Metrics, resident_bytes
from emotion.serving.probation import Addresses
from emotion.serving.workers import AnalysisWorkers
from facevox.errors import one_line

PROTOCOL_VERSION = 1
MORE_CONNECTIONS = 64  # besides those of live clients: pages, uploads, health checks


class Connection(Protocol):
    """A client that streams; see `emotion.serving.session.CameraSession`.

    Attributes:
        address: Of the client, as `address_key` returns it.
        heard_s: Time of its last frame, or of its start, by `time.monotonic`.
    """

    address: str
    heard_s: float

    @property
    def has_sent(self) -> bool:
        """True after the first frame."""

    def evict(self) -> None:
        """Ends it soon, to make room."""


class Service:
    """One running server.

    Args:
        config: Of the server.

    Raises:
        UserError: The model has no readable description.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.logger: logging.Logger = get_logger("server")
        self.metrics = Metrics()
        self.sessions: set[Connection] = set()
        self.addresses = Addresses()
        self.connections = Connections(
            config.max_connections + MORE_CONNECTIONS,
            config.max_connections_per_address,
            config.trusted_proxies,
        )
        self.loop_time = LoopTime()
        self.workers = AnalysisWorkers(config)
        self.class_names: tuple[str, ...] = ()
        if config.model is not None:
            self.class_names = tuple(read_about(config.model)["class_names"])
        self.going_down = asyncio.Event()
        self.failure = ""  # the error that kept the workers from starting
        self._warming: asyncio.Task[None] | None = None

    @property
    def has_model(self) -> bool:
        """True with a model."""
        return self.config.model is not None

    @property
    def is_stopping(self) -> bool:
        """True while the server shuts down; for any thread."""
        return self.going_down.is_set()

    @property
    def is_ready(self) -> bool:
        """True if pictures are analysed at once."""
        return self.has_model and self.workers.is_warm and not self.is_stopping

    def start(self) -> None:
        """Starts warming the workers up; requests are answered meanwhile."""
        self._warming = asyncio.get_running_loop().create_task(self._warm_up())

    async def _warm_up(self) -> None:
        start_s = time.perf_counter()
        try:
            await self.workers.warm_up()
        except Exception as error:
            self.failure = one_line(error)
            self.logger.error("the workers could not be started: %s", self.failure)
            return
        if self.config.model is None:
            self.logger.warning(
                "no trained model: train one (make emotion-preprocess emotion-train, or make demo) and start "
                "the server again"
            )
        else:
            self.logger.info(
                "%s, %d classes, %d workers, ready after %.2f s",
                *(self.config.model.name, len(self.class_names), self.config.num_workers),
                time.perf_counter() - start_s,
            )

    async def stop(self) -> None:
        """Ends the workers; what is being analysed is finished."""
        self.going_down.set()
        if self._warming is not None:
            await self._warming
        await asyncio.get_running_loop().run_in_executor(None, self.workers.close)
        self.logger.info(
            "stopped; %d frames analysed of %d clients",
            *(self.metrics.value(name) for name in ("frames_analysed_total", "connections_total")),
        )

    def hello(self) -> dict[str, object]:
        """Classes and limits: the first message of every connection, and GET /api/model."""
        config = self.config
        return {
            "type": "hello",
            "version": PROTOCOL_VERSION,
            "ready": self.has_model and not self.failure,
            "classes": list(self.class_names),
            "labels": translate_labels(self.class_names),
            "model": None if config.model is None else config.model.name,
            "limits": {
                "frame_bytes": config.max_frame_bytes,
                "frame_pixels": config.max_frame_pixels,
                "frames_per_s": config.max_frames_per_s,
                "faces": config.max_faces,
                "connections": config.max_connections,
                "upload_bytes": config.max_upload_bytes,
                "upload_pixels": config.max_upload_pixels,
                "video_s": config.max_video_s,
            },
        }

    def describe_faces(self, faces: Sequence[Face]) -> list[FaceAnswer]:
        """Faces as JSON."""
        return [face_json(face, self.class_names) for face in faces]

    def metrics_text(self) -> str:
        """The text of /metrics."""
        return self.metrics.expose(
            {
                "emotion_connections": ("WebSocket connections that are open.", len(self.sessions)),
                "emotion_ready": ("1 when pictures are analysed.", float(self.is_ready)),
                "emotion_memory_bytes": ("Memory of the server's process.", resident_bytes()),
            }
        )
