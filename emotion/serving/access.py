"""The token that page, WebSocket and API ask for where SERVER_TOKEN is set."""

import hashlib
import hmac
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response

from emotion.serving.refusals import Refusal
from emotion.settings import Secret

COOKIE = "facevox_access"
OPEN_PATH = "/health"  # for those who only watch whether the process lives
# Where a browser can send nothing but an address: the first visit, and a WebSocket of another origin.
PATHS_WITH_QUERY = ("/", "/ws")
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    "{head}<title>facevox</title></head><body>{body}</body></html>"
)
_FORM = (
    '<p>{en}</p><p lang="ko">{ko}</p><form><label>Token | 토큰 '
    '<input type="password" name="token" required></label> <button>OK</button></form>'
)


class Access:
    """Decides who may use the server.

    The page gets the token once, as `/?token=...`, and then a cookie that scripts cannot read and that other
    sites' pages do not send. The cookie is derived from the token: who reads it, say another server of this
    host, does not know the token.

    Args:
        token: Empty: everybody may.
    """

    def __init__(self, token: Secret) -> None:
        self._token = token.text.encode()
        self._cookie = hmac.new(self._token, b"facevox page", hashlib.sha256).hexdigest()

    def is_granted(self, scope: MutableMapping[str, Any], headers: Headers) -> bool:
        """True if a request needs no token or has it: as a bearer token, in its address, or as the cookie."""
        if not self._token or scope["path"] == OPEN_PATH:
            return True
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(bearer.strip()):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self._cookie.encode()) or self._is_in_query(scope)

    def page(self, scope: MutableMapping[str, Any]) -> Response | None:
        """The answer to a visit of the page that brings the token or lacks it; None for other requests."""
        if not self._token or scope["path"] != "/" or scope["method"] != "GET":
            return None
        if self._is_in_query(scope):
            # Not a redirect: after a link on another site the browser would not send the cookie with it.
            response = HTMLResponse(
                _PAGE.format(head='<meta http-equiv="refresh" content="0;url=./">', body="")
            )
            is_secure = scope["scheme"] == "https"
            response.set_cookie(COOKIE, self._cookie, secure=is_secure, httponly=True, samesite="strict")
            return response
        if self.is_granted(scope, Headers(raw=scope["headers"])):
            return None
        refusal = Refusal("unauthorized")
        return HTMLResponse(_PAGE.format(head="", body=_FORM.format(**refusal.message)), refusal.status)

    def _is_in_query(self, scope: MutableMapping[str, Any]) -> bool:
        if scope["path"] not in PATHS_WITH_QUERY:
            return False
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=None)
        return self._is_token(query.get("token", [""])[0])

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self._token)
