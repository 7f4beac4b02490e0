"""Addresses of media on the network: reading them, and showing them without their passwords."""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from facevox.errors import UserError, printable

WEB_SCHEMES = ("http", "https")
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "tcp")
MAX_CHARACTERS = 4096
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# One slash, as of an address that was read as a path, is enough: a password in it is hidden as well.
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/?#'\"]*@")
# To the end of a word, without the signs after it in a sentence.
_QUERY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,2}[^\s?#'\"]*\?)([^\s#'\"]*?)(?=[:;,.)]*(?:[\s#'\"]|$))")
_SECRET_NAME = re.compile("pass|pw|token|key|secret|sig|auth|cred|session|jwt|policy|hash|hmac|code", re.I)
_MOST_SHOWN = 16  # characters of a value that may be shown: keys and signatures are longer
HIDDEN = "***"


def is_address(text: str) -> bool:
    """True for `scheme://…`, whatever the scheme; a name such as http:x.mp4 is a file's."""
    return bool(_ADDRESS.match(text))


def masked(text: str) -> str:
    """The text with the logins and the secret parts of queries of all addresses in it replaced by ***.

    Values of a query are hidden where their name sounds secret (token, key, …) or they are longer than 16
    characters. A path is shown.
    """

    def hidden(match: re.Match[str]) -> str:
        pairs = []
        for pair in match[2].split("&"):
            name, _, value = pair.partition("=")
            is_secret = _SECRET_NAME.search(name) or max(len(name), len(value)) > _MOST_SHOWN
            pairs.append(f"{name[:_MOST_SHOWN]}={HIDDEN}" if is_secret else pair)
        return match[1] + "&".join(pairs)

    return _QUERY.sub(hidden, _LOGIN.sub(rf"\1{HIDDEN}@", text))


@dataclass(frozen=True)
class Address:
    """An address of media; as text, its passwords are hidden.

    Attributes:
        url: The whole of it, with its passwords: for who connects, never for messages and files.
    """

    url: str = field(repr=False)

    def __str__(self) -> str:
        return masked(self.url)

    @property
    def scheme(self) -> str:
        """The scheme in lower case."""
        return urlsplit(self.url).scheme.lower()

    @property
    def is_web(self) -> bool:
        """True for http and https, which may be those of a file."""
        return self.scheme in WEB_SCHEMES

    @property
    def name(self) -> str:
        """The last part of its path, or else its host, as the name of a file."""
        parts = urlsplit(self.url)
        return printable(unquote(parts.path).rstrip("/").rpartition("/")[2] or parts.hostname or "")


def read_address(text: str) -> Address:
    """The address.

    Raises:
        UserError: Another scheme, no host, no valid port, or characters that no address has. The message has
            no part of it that could be a password.
    """
    schemes = ", ".join(f"{scheme}://" for scheme in (*WEB_SCHEMES, *LIVE_SCHEMES))
    scheme = text.partition("://")[0].lower()
    if scheme == "file":
        raise UserError("file:// is no address on the network; name the file itself")
    if scheme not in (*WEB_SCHEMES, *LIVE_SCHEMES):
        raise UserError(f"{printable(scheme)}:// addresses are not read; those of {schemes} are")
    if len(text) > MAX_CHARACTERS or not text.isascii() or re.search(r"[\x00-\x20\x7f\\]", text):
        raise UserError(
            f"the {scheme}:// address has characters that no address has, or more than {MAX_CHARACTERS}; "
            "write others as %XX"
        )
    try:
        parts = urlsplit(text)
        is_whole = parts.hostname is not None and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        raise UserError(
            f"the {scheme}:// address has no host or no valid port; {scheme}://user:password@host:port is "
            "expected, with / ? # @ and : in a password as %2F %3F %23 %40 %3A"
        )
    return Address(text)
