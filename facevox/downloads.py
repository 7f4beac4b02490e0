"""Whether there is a network to download from; asked before a download that could hang."""

import threading
import urllib.error
import urllib.request

# A firewall that drops packets keeps an attempt hanging for half a minute; whoever has a network at
# all answers within this time.
CONNECTION_CHECK_S = 3.0


def answers(url: str, timeout_s: float = CONNECTION_CHECK_S) -> bool:
    """Whether the server of `url` (through the environment's proxy, if any) answers within `timeout_s`.

    In a thread of its own: looking up a host name knows no time limit.
    """
    heard: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - our constants
        try:
            with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
                heard.append(True)
        except urllib.error.HTTPError as error:
            heard.append(error.code < 500)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return bool(heard and heard[0])
