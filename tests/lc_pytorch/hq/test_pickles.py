"""The restricted unpickler: what it reads; hostile pickles are refused, run nothing and cost little."""

import codecs
import os
import pickle
import pickletools
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from call_counts import count_calls

from lc_pytorch.hq.pickles import MAX_INSTRUCTIONS, PickleError, load_plain

MATRIX = np.arange(12.0).reshape(3, 4)
PLAIN = {
    "numbers": [1, -5, 2**70, -(2**70), 1.5, float("inf"), None, True, False, 3 + 4j, 255, 65535, 10**5],
    "texts": ("한글\n'\"\\", "", b"xyz", b"", b"\x00\xff\n"),
    "matrix": MATRIX,
    "transposed": MATRIX.T,
    "fortran": np.asfortranarray(MATRIX),
    "strided": MATRIX[:, ::2],
    "big_endian": MATRIX.astype(">f4"),
    "truth": np.array([True, False]),
    "words": np.array(["ab", "c"]),
    "scalars": [np.float32(3.5), np.int64(-3), np.str_("id1"), np.bool_(True)],
    "no_rows": np.zeros((0, 40)),
    "one_number": np.array(5),
    "shared": [MATRIX, MATRIX, {"again": MATRIX}],
    3: 4,
}


def same(found, wanted) -> bool:
    if isinstance(wanted, dict):
        return (
            type(found) is dict
            and list(found) == list(wanted)
            and all(same(found[k], wanted[k]) for k in wanted)
        )
    if isinstance(wanted, (list, tuple)):
        return type(found) is type(wanted) and len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, np.ndarray):
        is_like = (
            isinstance(found, np.ndarray) and found.dtype == wanted.dtype and found.shape == wanted.shape
        )
        return is_like and np.array_equal(found, wanted)
    return type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_plain_data_come_back_as_they_went_in(protocol, core):
    data = pickle.dumps(PLAIN, protocol)
    other = "numpy._core" if core == "numpy.core" else "numpy.core"
    data = _renamed(data, other, core)
    assert same(load_plain(data), PLAIN)


def _renamed(data: bytes, old: str, new: str) -> bytes:
    """The pickle with NumPy's module named as the other version does; lengths in front of names follow."""
    for module in ("multiarray", "numeric"):
        before, after = f"{old}.{module}".encode(), f"{new}.{module}".encode()
        for head, size in ((b"\x8c", 1), (b"X", 4)):
            data = data.replace(
                head + len(before).to_bytes(size, "little") + before,
                head + len(after).to_bytes(size, "little") + after,
            )
        data = data.replace(b"c" + before, b"c" + after)
    # Frames of protocol 4 and 5 tell their length: one frame, to the end.
    if data[2:3] == b"\x95":
        data = data[:3] + struct.pack("<Q", len(data) - 11) + data[11:]
    return data


def test_pickle_of_python_2_is_read():
    """As Python 2.7 and NumPy 1.16 write it: 8-bit strings for keys and for the bytes of the array."""
    body = b"".join(
        (
            b"\x80\x02}q\x01U\x0fLogMel_Featuresq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04",
            b"K\x00\x85q\x05U\x01bq\x06\x87q\x07Rq\x08(K\x01K\x02K\x03\x86q\x09cnumpy\ndtype\nq\x0aU\x02f8q\x0bK\x00K\x01",
            b"\x87q\x0cRq\x0d(K\x03U\x01<q\x0eNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0fb\x89T\x30\x00\x00\x00",
            np.arange(6.0).tobytes(),
            b"q\x10tq\x11bs.",
        )
    )
    assert same(load_plain(body), {"LogMel_Features": np.arange(6.0).reshape(2, 3)})
    text = b"(dp0\nS'a\\x00\\'b'\np1\nI7\nsS\"c\"\nL5L\ns."
    assert load_plain(text) == {"a\x00'b": 7, "c": 5}


def test_every_instruction_that_plain_data_need_is_known():
    """Against the standard library: whatever its pickler writes for plain data can be read."""
    for protocol in range(6):
        names = {op.name for op, _, _ in pickletools.genops(pickle.dumps(PLAIN, protocol))}
        assert names  # each was executed by the test above; here: none of them is of the dangerous kind
        assert not names & {
            "PERSID",
            "BINPERSID",
            "EXT1",
            "EXT2",
            "EXT4",
            "INST",
            "OBJ",
            "NEWOBJ",
            "NEWOBJ_EX",
        }


def test_shared_and_big_arrays_are_not_copied():
    data = pickle.dumps({"a": np.zeros(1_000_000), "b": 1}, 4)
    tracemalloc.start()
    value = load_plain(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert value["a"].shape == (1_000_000,)
    assert peak < 1.2 * len(data)
    assert not value["a"].flags.writeable


# Hostile pickles. Each that would run something, run by pickle.loads, would make the marker file.


class _Calls:
    def __init__(self, function, *arguments):
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


def _hostile(marker: Path) -> dict[str, bytes]:
    touch = f"touch '{marker}'"
    write = f"open({str(marker)!r}, 'w').close()"
    system = _Calls(os.system, touch)
    text = touch.encode()
    array_head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    dtype = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    shared = b"(lp0\n" + b"".join(b"(lp%d\n" % (k + 1) + b"g%d\na" % k * 10 for k in range(12)) + b"."
    return {
        "os.system by reduce, protocol 0": pickle.dumps(system, 0),
        "os.system by reduce, protocol 2": pickle.dumps(system, 2),
        "os.system by STACK_GLOBAL": pickle.dumps(system, 5),
        "builtins.eval": pickle.dumps(_Calls(eval, write), 4),
        "builtins.exec by NEWOBJ": b"\x80\x02cbuiltins\nexec\n(V" + write.encode() + b"\nt\x81.",
        "INST": b"(S'" + text.replace(b"'", b"\\'") + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nV" + text + b"\no.",
        "nested in a dictionary": pickle.dumps({"LogMel_Features": MATRIX, "spkid": [({"a": system},)]}, 3),
        "put in the memo and called later": b"cos\nsystem\np5\n0V" + text + b"\np6\n0g5\ng6\n\x85R.",
        "memo overwritten between name and call": (
            b"cnumpy\ndtype\np0\n0cos\nsystem\np0\n0g0\n(V" + text + b"\ntR."
        ),
        "memo of a place that is far away": (
            b"Nr\xff\xff\xff\x7fj\xff\xff\xff\x7fcos\nsystem\n(V" + text + b"\ntR."
        ),
        "memo of what is not there": b"g7\n.",
        "objects in an array": pickle.dumps(np.array([system, None], dtype=object), 2),
        "objects in an array, by buffer": pickle.dumps(np.array([system, None], dtype=object), 5),
        "array far larger than the file": array_head + b"(I1\n(L100000000000L\nt" + dtype + b"I0\nS'xy'\ntb.",
        "array of negative size": array_head + b"(I1\n(I-4\nI-4\nt" + dtype + b"I0\nS'xy'\ntb.",
        "array of a thousand dimensions": (
            array_head + b"(I1\n(" + b"I1\n" * 1000 + b"t" + dtype + b"I0\nS'12345678'\ntb."
        ),
        "lists in lists": b"]" * 200_000 + b"a" * 199_999 + b".",
        "tuples in tuples": b")" + b"\x85" * 200_000 + b".",
        "tuples in tuples as a key": b"})" + b"\x85" * 200_000 + b"Ns.",
        "billion laughs": shared,
        "list that holds itself": b"]q\x00h\x00a.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x00.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "persistent id, text": b"Pos.system\n.",
        "persistent id": b"\x80\x02V" + text + b"\nQ.",
        "buffer out of band": b"\x80\x05\x97.",
        "numpy.load": b"cnumpy\nload\n(V" + str(marker).encode() + b"\ntR.",
        "numpy.testing…runstring": (
            b"cnumpy.testing._private.utils\nrunstring\n(V" + write.encode() + b"\n}tR."
        ),
        "numpy.f2py…exec": b"cnumpy.f2py.crackfortran\nmyeval\n(V" + write.encode() + b"\ntR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0acore.os.system\x93.",
        "dotted name through an allowed module": (
            b"\x80\x04\x8c\x1anumpy.core.multiarray.numpy\x8c\x07ndarray\x93."
        ),
        "getattr": b"cbuiltins\ngetattr\n(cos\nsystem\nV__call__\ntR.",
        "state for an object": b"cnumpy\ndtype\n(S'f8'\ntR}V__setstate__\ncos\nsystem\nsb.",
        "state for a list": b"](lb.",
        "dtype of records": pickle.dumps(np.zeros(2, dtype=[("a", "f8"), ("b", "O")]), 2),
        "dtype of sub-arrays": pickle.dumps(np.dtype(("f8", (1000, 1000))), 2),
        "dtype by a string of fields": b"cnumpy\ndtype\n(S'(100000,100000)f8,O'\ntR.",
        "dtype with metadata": pickle.dumps(np.zeros(2, np.dtype("f8", metadata={"a": system})), 2),
        "times": pickle.dumps(np.array(["2020-01-01"], dtype="M8[D]"), 2),
        "LONG4 of 2 GB": b"\x8b\xff\xff\xff\x7f\x01.",
        "LONG of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
        "FLOAT of a million digits": b"F" + b"9" * 1_000_000 + b"\n.",
        "BINBYTES8 of 2^62": b"\x8e" + struct.pack("<Q", 2**62) + b"x.",
        "BINUNICODE8 of 2^63": b"\x8d" + struct.pack("<Q", 2**63) + b"x.",
        "BYTEARRAY8 of 2^40": b"\x96" + struct.pack("<Q", 2**40) + b"x.",
        "frame longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
        "bytes(10**11)": b"cbuiltins\nbytes\n(L100000000000L\ntR.",
        "text turned into bytes over and over": (
            b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000 + b"p0\n0]"
            + b"c_codecs\nencode\n(g0\nVlatin1\ntRa" * 2_000 + b"."
        ),
        "scalars of one text over and over": (
            b"X" + struct.pack("<I", 90_000) + b"a" * 90_000 + b"p0\n0cnumpy\ndtype\n(VS90000\ntRp1\n0]"
            + b"cnumpy.core.multiarray\nscalar\n(g1\ng0\ntRa" * 9_000 + b"."
        ),
        "dictionaries without end": b"(" + b"}\x94" * MAX_INSTRUCTIONS + b"t.",
        "keys that collide": b"}(" + b"".join(b"L%dL\nN" % (k * (2**61 - 1)) for k in range(1, 2000)) + b"u.",
        "codec that decompresses": b"c_codecs\nencode\n(Vabc\nVzlib\ntR.",
        "a name left as data": b"cnumpy\nndarray\n.",
        "an array without content": array_head + b".",
        "set": pickle.dumps({1, 2}, 4),
        "an object": pickle.dumps(Path("/tmp"), 4),
        "protocol 9": b"\x80\x09N.",
        "cut in the middle": pickle.dumps(PLAIN, 2)[:-40],
        "no pickle": b"\x00\x01RIFF",
        "nothing to stop at": b"N",
        "stop at nothing": b".",
        "mark only": b"(.",
        "pop of nothing": b"0.",
        "string with an unknown escape": b"S'\\q'\n.",
        "string without quotes": b"Sabc\n.",
    }  # fmt: skip


HOSTILE = list(_hostile(Path("/tmp/marker")))


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickle_is_refused_in_one_line_runs_nothing_and_stays_small(kind, tmp_path):
    marker = tmp_path / "executed"
    data = _hostile(marker)[kind]
    file = tmp_path / "mel.pickle"
    file.write_bytes(data)

    def message_of() -> str:
        with pytest.raises(PickleError) as caught:
            load_plain(file)
        return str(caught.value)

    message, num_calls = count_calls(message_of)
    tracemalloc.start()
    assert message_of() == message
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message.startswith(str(file))
    assert "\n" not in message
    assert len(message) < len(str(file)) + 250
    assert not marker.exists()
    assert peak < 120e6 + 5 * len(data)
    assert num_calls < 5 * MAX_INSTRUCTIONS


@pytest.mark.parametrize("kind", ["os.system by reduce, protocol 0", "builtins.eval", "INST", "OBJ"])
def test_the_hostile_pickles_would_run(kind, tmp_path):
    """The marker shows something: the standard library's unpickler falls for these."""
    marker = tmp_path / "executed"
    pickle.loads(_hostile(marker)[kind])
    assert marker.exists()


def test_message_names_what_was_refused():
    with pytest.raises(PickleError, match=r"mel: refused: it names posix\.system, which is not plain data"):
        load_plain(pickle.dumps(_Calls(os.system, "true"), 0), name="mel")
    with pytest.raises(PickleError, match="instruction EXT1"):
        load_plain(b"\x80\x02\x82\x01.")
    strange = b"c" + b"evil\x1b[31m" + b"\n" + b"x" * 500 + b"\n."
    with pytest.raises(PickleError) as caught:
        load_plain(strange)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


def test_size_is_looked_at_before_reading(tmp_path):
    file = tmp_path / "large.pickle"
    with file.open("wb") as opened:
        opened.truncate(10**12)  # sparse
    with pytest.raises(PickleError, match="1000000000000 bytes; at most 64000000 are read"):
        load_plain(file)
    with pytest.raises(PickleError, match="at most 3"):
        load_plain(pickle.dumps("abcdef"), max_bytes=3)


def test_missing_empty_and_irregular_files_are_refused(tmp_path):
    with pytest.raises(PickleError, match="No such file"):
        load_plain(tmp_path / "none.pickle")
    (tmp_path / "empty.pickle").touch()
    with pytest.raises(PickleError, match="empty"):
        load_plain(tmp_path / "empty.pickle")
    os.mkfifo(tmp_path / "pipe.pickle")
    with pytest.raises(PickleError, match="not a regular file"):
        load_plain(tmp_path / "pipe.pickle")


def test_random_damage_ends_in_a_value_or_one_line():
    """6 000 damaged pickles: never another exception, never a file or process made."""
    rng = np.random.default_rng(0)
    messages = set()
    for protocol in range(6):
        whole = pickle.dumps(PLAIN, protocol)
        for _ in range(1_000):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), rng.integers(1, 6)):
                data[place] = rng.integers(0, 256)
            try:
                load_plain(bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.2 else data))
            except PickleError as error:
                messages.add(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


def test_strings_of_protocol_0_are_decoded_as_the_library_does(tmp_path):
    for text in (b"plain", b"quote'", b'double"', bytes(range(256))):
        encoded = codecs.escape_encode(text)[0]
        data = b"S'" + encoded + b"'\n."
        assert load_plain(data) == pickle.loads(data, encoding="latin-1")
