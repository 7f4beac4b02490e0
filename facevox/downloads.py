"""A check for a network to download from, made before a download that could hang."""

import threading
import urllib.error
import urllib.request

# A firewall that drops packets keeps an attempt hanging for half a minute; a machine that has a network at
# all gets an answer within this time.
CONNECTION_CHECK_S = 3.0


def answers(url: str, timeout_s: float = CONNECTION_CHECK_S) -> bool:
    """True if the server of `url` (through the environment's proxy, if any) answers within `timeout_s`.

    It asks in a separate thread, because looking up a host name has no time limit.
    """
    is_up: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - our constants
        try:
            with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
                is_up.append(True)
        except urllib.error.HTTPError as error:
            is_up.append(error.code < 500)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return is_up == [True]
