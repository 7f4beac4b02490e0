"""Serve the live page of facial expressions: webcam, pictures and videos, analysed by the trained classifier.

    python emotion/server.py                                 # http://localhost:8001; settings from .env
    python emotion/server.py --server_port 8080 --max_faces 2
    python emotion/server.py --server_host 0.0.0.0           # for everybody who reaches this machine

Reads the newest model in MODEL_DIR (emotion/main.py writes it) or else that of `make demo`; without one it
starts all the same and reports how to train one. Browsers allow the webcam on localhost and over HTTPS only.
Writes nothing but LOG_DIR/app_YYYY_MM_DD.log: counts and latencies, never a frame or a face. Exit codes: 0
ended by a signal (SIGTERM or Ctrl-C; clients are asked to connect again); 1 the server failed; 2 bad usage,
settings or model, or the port is taken.
"""

import argparse
import contextlib
import logging
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emotion.logger_config import setup_logging
from emotion.settings import Settings, add_setting_arguments, load_settings
from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.native_silence import native_silence
from facevox.signals import StopFlag

# The web framework and the interpreter are loaded once the port is open, so that --help and a port that is
# taken are quick.
if TYPE_CHECKING:
    import uvicorn

    from emotion.serving.service import Service

BACKLOG = 256  # connections that the system keeps until they are accepted
ACCEPTED = 8  # at a time: asyncio accepts as many before it does anything else, and each takes 0.1 ms
PING_S = 20.0  # a client that answers no ping for as long again is cut off
GRACE_S = 3  # for answers that are being sent when the server is to stop; five seconds are all it may take


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python emotion/server.py --server_port 8080")
    add_setting_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal comes; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    settings = load_settings(args)
    listener = _listen(settings.server_host, settings.server_port)
    with listener, StopFlag() as stop, native_silence():
        setup_logging(settings.log_dir, is_console_awaited=False)
        return _serve(settings, listener, stop)


def _listen(host: str, port: int) -> socket.socket:
    """The open port, before anything slow is done.

    Raises:
        UserError: The port is taken, or the host is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"SERVER_HOST={host}, SERVER_PORT={port}: cannot listen there: {error}; take another port "
            f"(--server_port {port % 65535 + 1}) | 다른 포트를 사용하세요"
        ) from None


def _serve(settings: Settings, listener: socket.socket, stop: StopFlag) -> int:
    from emotion.live import analysis
    from emotion.serving import config, service

    model = analysis.find_model(settings.model_dir)
    if model is not None:
        analysis.Classifier(model)  # a fault of it is reported now, not to the first client
    running = service.Service(config.ServerConfig.from_settings(settings, model))
    server = make_server(running, stop)
    host = "localhost" if settings.server_host in ("127.0.0.1", "::1", "0.0.0.0") else settings.server_host  # noqa: S104
    running.logger.info("http://%s:%d", host, settings.server_port)
    with contextlib.suppress(KeyboardInterrupt):  # a second signal while it shuts down
        server.run(sockets=[listener])
    return ExitCode.DONE if server.started else ExitCode.SOME_FAILED


def make_server(service: "Service", stop: StopFlag) -> "uvicorn.Server":
    """uvicorn with the settings that frames need, ended cleanly by any of `StopFlag`'s signals."""
    import uvicorn

    from emotion.serving import app, protocols

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for listener in sockets or []:
                listener.listen(BACKLOG)  # asyncio has made it ACCEPTED

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.going_down.set()
            await super().shutdown(sockets)

    async def check_flag() -> None:
        if stop:
            server.should_exit = True

    config = uvicorn.Config(
        app.make_app(service),
        http=protocols.RequestProtocol,
        ws=protocols.FrameProtocol,
        ws_max_size=service.config.max_frame_bytes,
        ws_per_message_deflate=False,  # frames are compressed already
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        timeout_graceful_shutdown=GRACE_S,
        backlog=ACCEPTED,
        callback_notify=check_flag,
        timeout_notify=0,  # at every tick, of a second
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(service.config.trusted_proxies),
        forwarded_allow_ips=list(service.config.trusted_proxies),
        lifespan="on",
    )
    server = Server(config)
    # uvicorn's errors go into the same log; its access lines would name addresses, and its warnings are a
    # line for each request that is not HTTP, by which a stranger fills the disk.
    log = logging.getLogger("uvicorn")
    log.handlers, log.propagate = list(logging.getLogger("emotion").handlers), False
    log.setLevel(logging.ERROR)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # so are its, for each broken form
    return server


if __name__ == "__main__":
    sys.exit(cli.run(main))
