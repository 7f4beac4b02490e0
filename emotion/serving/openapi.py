"""The part of /openapi.json that FastAPI cannot see: the refusals of each path, and the answers' shapes."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from emotion.serving.refusals import Refusal

Responses = dict[int | str, dict[str, Any]]

# Any path: before it is asked (Guard), or even before the request was read (RequestProtocol).
EVERYWHERE = ("foreign_host", "too_many_connections")
UPLOAD_REFUSALS = (
    *(
        "not_an_image",
        "too_many_pixels",
        "too_costly",
        "odd_shape",
        "no_model",
        "failed",
        "missing_file",
        "too_large",
    ),
    *("not_media", "too_long", "too_slow", "busy", "foreign_origin", "needs_linux", "stopping"),
)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(item: dict[str, Any], **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": item, **bounds}


_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_SHARES = _list({"type": "number", "minimum": 0, "maximum": 1})
_FACES = _list(
    _object(
        id=_WHOLE,
        box=_list(_NUMBER, minItems=4, maxItems=4),
        label=_TEXT,
        probabilities=_SHARES,
        smoothed=_SHARES,
    )
)
_ANALYSED = {
    "width": _WHOLE,
    "height": _WHOLE,
    "classes": _list(_TEXT),
    "ms": {"type": "object", "additionalProperties": _NUMBER},
}
_LIMITS = (
    *("frame_bytes", "frame_pixels", "frames_per_s", "faces", "connections"),
    *("upload_bytes", "upload_pixels", "video_s"),
)
HEALTH = _object(status={"const": "ok"})
READY = _object(status={"const": "ready"})
NOT_READY = _object(status={"enum": ["no_model", "starting", "failed", "stopping"]})
MODEL = _object(
    type={"const": "hello"},
    version=_WHOLE,
    ready={"type": "boolean"},
    classes=_list(_TEXT),
    labels={"type": "object", "additionalProperties": _list(_TEXT)},
    model={"type": ["string", "null"]},
    limits=_object(**dict.fromkeys(_LIMITS, _WHOLE)),
)
UPLOAD = {
    "oneOf": [
        _object(kind={"const": "image"}, **_ANALYSED, faces=_FACES),
        _object(
            kind={"const": "video"},
            **_ANALYSED,
            fps=_NUMBER,
            duration_s=_NUMBER,
            frames=_list(_object(time_s=_NUMBER, faces=_FACES)),
        ),
    ]
}
UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": _object(file={"type": "string", "format": "binary"})}},
    }
}


def answers(description: str, schema: dict[str, Any], refusals: Sequence[str] = ()) -> Responses:
    """The answers of a path: 200 with this description and schema, and its refusals by their status.

    Args:
        description: Of 200.
        schema: Of its JSON.
        refusals: Codes, besides those of every path.
    """
    codes: defaultdict[int, list[str]] = defaultdict(list)
    for code in (*EVERYWHERE, *refusals):
        codes[Refusal(code).status].append(code)
    responses: Responses = {
        200: {"description": description, "content": {"application/json": {"schema": schema}}}
    }
    for status, names in sorted(codes.items()):
        text = " ".join(Refusal(name).message["en"] for name in names)
        message = _object(en=_TEXT, ko=_TEXT)
        error = _object(error=_object(code={"enum": names}, message=message))
        responses[status] = {"description": text, "content": {"application/json": {"schema": error}}}
    not_http = responses.setdefault(400, {"description": "", "content": {}})
    not_http["description"] = f"{not_http['description']} Not HTTP.".strip()
    not_http["content"]["text/plain"] = {"schema": _TEXT}
    return responses
