"""Whether a server answers."""

import socket

import pytest

from facevox.downloads import answers


def test_connection_check_asks_once_and_does_not_wait_for_ever():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        address = f"https://127.0.0.1:{silent.getsockname()[1]}/retinaface.pth"
        assert not answers(address, timeout_s=0.5)
        silent.accept()[0].close()
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent.accept()
