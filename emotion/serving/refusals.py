"""Reasons why something is not analysed: a code for programs, messages in English and Korean for people."""

from facevox.files import IMAGE_FORMATS_TEXT

_FORMATS_KO = IMAGE_FORMATS_TEXT.replace(" or ", ", ")
# Code -> status of an HTTP answer, English, Korean. Over the WebSocket only code and messages are sent.
_REFUSALS = {
    "not_an_image": (
        *(415, f"This is not a picture that can be read ({IMAGE_FORMATS_TEXT}; not truncated)."),
        f"읽을 수 없는 이미지입니다(손상되지 않은 {_FORMATS_KO}만 가능).",
    ),
    "too_many_pixels": (
        *(413, "The picture has too many pixels; make it smaller."),
        "이미지의 픽셀 수가 너무 많습니다. 크기를 줄여 주세요.",
    ),
    "too_costly": (
        *(413, "Decoding it takes too long or too much memory; save it again in an ordinary format."),
        "디코딩에 시간이나 메모리가 너무 많이 필요합니다. 일반적인 형식으로 다시 저장해 주세요.",
    ),
    "odd_shape": (
        *(422, "The picture is too small or too narrow to hold a face."),
        "이미지가 너무 작거나 좁아서 얼굴을 찾을 수 없습니다.",
    ),
    "no_model": (
        *(503, "There is no trained model yet: make emotion-preprocess emotion-train, or make demo."),
        "아직 학습된 모델이 없습니다: make emotion-preprocess emotion-train 또는 make demo.",
    ),
    "failed": (
        *(500, "The picture could not be analysed; the server keeps running."),
        "이미지를 분석하지 못했습니다. 서버는 계속 동작합니다.",
    ),
    "missing_file": (
        *(400, "A form (multipart/form-data) with a picture or video in its field “file” is required."),
        "multipart/form-data 형식의 file 필드에 이미지나 영상을 보내 주세요.",
    ),
    "too_large": (413, "The file is too large.", "파일이 너무 큽니다."),
    "not_media": (
        *(
            415,
            f"This is neither a picture ({IMAGE_FORMATS_TEXT}) nor a video (MP4, MOV, MKV, WebM, AVI and "
            "others) that can be read.",
        ),
        f"읽을 수 있는 이미지({_FORMATS_KO})나 영상(MP4, MOV, MKV, WebM, AVI 등)이 아닙니다.",
    ),
    "too_long": (413, "The video is too long; cut it.", "영상이 너무 깁니다. 잘라서 보내 주세요."),
    "too_slow": (408, "The file did not arrive in time.", "파일이 제시간에 도착하지 않았습니다."),
    "busy": (
        *(503, "Other files are being analysed; try again in a moment."),
        "다른 파일을 분석하고 있습니다. 잠시 후 다시 시도해 주세요.",
    ),
    "too_many_connections": (
        *(503, "Too many connections, or too many from your address; close some or try again in a moment."),
        "연결이 너무 많거나 같은 주소에서 온 연결이 너무 많습니다. 잠시 후 다시 시도해 주세요.",
    ),
    "unauthorized": (
        *(401, "The server asks for its token (SERVER_TOKEN): Authorization: Bearer TOKEN"),
        "서버 토큰(SERVER_TOKEN)이 필요합니다: Authorization: Bearer TOKEN",
    ),
    "foreign_origin": (
        *(403, "This page may not use the server (ALLOWED_ORIGINS)."),
        "이 페이지에서는 서버를 사용할 수 없습니다(ALLOWED_ORIGINS).",
    ),
    "foreign_host": (
        *(421, "The server does not go by this name (SERVER_HOST, ALLOWED_ORIGINS)."),
        "이 이름으로는 서버에 접속할 수 없습니다(SERVER_HOST, ALLOWED_ORIGINS).",
    ),
    "needs_linux": (
        *(501, "Uploads are kept in memory by means that only Linux has; run the server there."),
        "파일 업로드는 Linux에서 실행한 서버에서만 가능합니다.",
    ),
    "stopping": (503, "The server is going down.", "서버가 종료되는 중입니다."),
}
CODES = tuple(_REFUSALS)


class Refusal(Exception):
    """Something that is not analysed.

    Args:
        code: One of `CODES`.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code
        self.status, english, korean = _REFUSALS[code]
        self.message = {"en": english, "ko": korean}

    def as_http(self) -> dict[str, object]:
        """The body of an HTTP answer."""
        return {"error": {"code": self.code, "message": self.message}}

    def as_event(self, frame: int) -> dict[str, object]:
        """The message over the WebSocket about the client's frame of this number."""
        return {"type": "error", "code": self.code, "frame": frame, "message": self.message}
