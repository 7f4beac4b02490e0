"""The configuration of a running server."""

from dataclasses import dataclass
from pathlib import Path

from emotion.settings import Secret, Settings
from facevox.cli import num_cores
from facevox.options import default_of

STATIC_DIR = Path(__file__).resolve().parent.parent / "static"
# Each worker holds a detector and a copy of the network, 65 MB together: three of them make 360 MB in all.
MOST_DEFAULT_WORKERS = 3


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The server's part of the settings; emotion/settings.py has their meanings and bounds.

    Attributes:
        model: The exported `.tflite`; None: nothing is analysed until one is trained.
    """

    model: Path | None
    host: str = default_of(Settings, "server_host")
    port: int = 8001
    allowed_origins: tuple[str, ...] = default_of(Settings, "allowed_origins")
    server_token: Secret = default_of(Settings, "server_token")
    trusted_proxies: tuple[str, ...] = default_of(Settings, "trusted_proxies")
    max_faces: int = default_of(Settings, "max_faces")
    max_frame_bytes: int = default_of(Settings, "max_frame_bytes")
    max_frame_pixels: int = default_of(Settings, "max_frame_pixels")
    max_frames_per_s: int = default_of(Settings, "max_frames_per_s")
    max_connections: int = default_of(Settings, "max_connections")
    max_connections_per_address: int = default_of(Settings, "max_connections_per_address")
    max_upload_bytes: int = default_of(Settings, "max_upload_bytes")
    max_upload_pixels: int = default_of(Settings, "max_upload_pixels")
    max_video_s: int = default_of(Settings, "max_video_s")
    num_workers: int = 2

    @classmethod
    def from_settings(cls, settings: Settings, model: Path | None) -> "ServerConfig":
        """The configuration with the server's part of all settings."""
        return cls(
            model=model,
            host=settings.server_host,
            port=settings.server_port,
            allowed_origins=settings.allowed_origins,
            server_token=settings.server_token,
            trusted_proxies=settings.trusted_proxies,
            max_faces=settings.max_faces,
            max_frame_bytes=settings.max_frame_bytes,
            max_frame_pixels=settings.max_frame_pixels,
            max_frames_per_s=settings.max_frames_per_s,
            max_connections=settings.max_connections,
            max_connections_per_address=settings.max_connections_per_address,
            max_upload_bytes=settings.max_upload_bytes,
            max_upload_pixels=settings.max_upload_pixels,
            max_video_s=settings.max_video_s,
            num_workers=settings.server_workers or min(num_cores(), MOST_DEFAULT_WORKERS),
        )
