"""Addresses: what is read as one, and that no password of one is shown."""

import argparse
from pathlib import Path

import pytest

from facevox import cli
from facevox.addresses import Address, is_address, masked, read_address
from facevox.errors import UserError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@host:554/a?b=c", "rtsp://***@host:554/a?b=c"),
        ("rtsp://user:se@cret@host/a", "rtsp://***@host/a"),
        ("HTTPS://secret@host", "HTTPS://***@host"),
        ("http:/user:secret@host/a", "http:/***@host/a"),  # of a Path
        ("https://h/a.mp4?id=3&X-Amz-Signature=secret", "https://h/a.mp4?id=3&X-Amz-Signature=***"),
        ("https://h/a?access_token=secret: broken", "https://h/a?access_token=***: broken"),
        ("https://h/a?x=0123456789abcdef0123456789", "https://h/a?x=***"),
        ("https://h/a?secret0123456789abcdef", "https://h/a?secret0123456789=***"),
        ("srt://h:1?streamid=a&passphrase=secret", "srt://h:1?streamid=a&passphrase=***"),
        ("a rtsp://u:secret@h/x, then http://v:secret@h/y.", "a rtsp://***@h/x, then http://***@h/y."),
        ("http://host/a@b.mp4", "http://host/a@b.mp4"),
        ("talk.mp4", "talk.mp4"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert "://" not in text or str(Address(text)) == shown
    assert text == shown or text not in repr(Address(text))


@pytest.mark.parametrize("name", ["http:x.mp4", "talk.mp4", "C:\\x.mp4", "-i", "a/b://c", "://x"])
def test_names_of_files_are_no_addresses(name: str) -> None:
    assert not is_address(name)
    assert isinstance(cli.media_argument(name), Path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file://localhost/a", "name the file itself"),
        ("concat://secret@a", "concat:// addresses are not read"),
        ("ftp://user:secret@host/x", "ftp:// addresses are not read; those of http://"),
        ("http:///secret", "no host or no valid port"),
        ("rtsp://user:sec/ret@host/x", "no host or no valid port"),
        ("rtsp://user:secret@host:99999/x", "no host or no valid port"),
        ("http://user:secret@host/a b", "characters that no address has"),
        ("http://user:secret@host/\n", "characters that no address has"),
        ("http://user:secret@host/" + "a" * 5000, "more than 4096"),
    ],
)
def test_other_addresses_are_refused_without_their_passwords(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        read_address(text)
    assert "sec" not in str(refusal.value)
    with pytest.raises(argparse.ArgumentTypeError):
        cli.media_argument(text)


def test_name_is_that_of_a_file() -> None:
    assert Address("https://u:p@host/a/talk%20one.mp4?token=x").name == "talk one.mp4"
    assert Address("rtsp://u:p@host").name == "host"


def test_messages_of_programs_hide_passwords(capsys) -> None:
    parser = cli.make_parser("Doc.")
    for words in (["rtsp://user:secret@host/x"], ["--no_such_option=rtsp://user:secret@host/x"]):
        with pytest.raises(SystemExit):
            parser.parse_args(words)

    def fail(argv: object) -> int:
        raise UserError("http://user:secret@host/x: broken")

    assert cli.run(fail, []) == 2
    message = capsys.readouterr().err
    assert message.count("***@host/x") == 3
    assert "secret" not in message
