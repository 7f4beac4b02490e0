"""scripts/setup/doctor.py: what it says about versions, GPUs and missing libraries, and its exit code."""

import pytest


@pytest.fixture
def doctor(load_script):
    return load_script("setup/doctor")


def test_main_job_can_run_here(doctor, capsys):
    assert doctor.main(["--timeout_s", "240"]) == 0  # where much else runs, imports take minutes
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("the main job can run")
    topics = [line[4:17].strip() for line in lines[:-1]]
    for topic in (
        "Python",
        "cores",
        "memory",
        "disk",
        "packages",
        "lock",
        "imports",
        "GPU",
        "dlib",
        "sample data",
    ):
        assert topics.count(topic) == 1, topic
    assert topics.count("weights") >= 10


def test_one_fault_gives_exit_code_1(doctor, monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "examine", lambda timeout_s: [("ok", "a", ""), ("!!", "b", "bad"), ("--", "c", "")]
    )
    assert doctor.main([]) == 1
    assert "the 1 line marked !!" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "mark"), [((3, 11, 7), "ok"), ((3, 13, 0), "ok"), ((3, 10, 9), "!!"), ((3, 14, 0), "!!")]
)
def test_other_pythons_are_a_fault(doctor, version, mark):
    assert doctor.python_line(version)[0] == mark


def test_difference_from_the_lock_is_no_fault_but_told(doctor, monkeypatch):
    installed = {"facevox": "0.1.0", "numpy": "1.26.4"}
    for answer, line in (
        (("all packages as in uv.lock", ""), ("ok", "lock", "all packages as in uv.lock")),
        (("", "error: not as in uv.lock (+ six==1): make install"), ("--", "lock", "error: not as in")),
    ):
        monkeypatch.setattr(doctor, "_ask", lambda *_, answer=answer: answer)
        lines = list(doctor.package_lines(installed, 9))
        assert lines[0] == ("ok", "packages", "numpy 1.26.4")
        assert lines[1][:2] == line[:2]
        assert lines[1][2].startswith(line[2])


def test_environment_without_uv_is_not_compared(doctor, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.sys, "prefix", str(tmp_path))
    assert list(doctor.package_lines({"facevox": "0.1.0"}, 9))[1][:2] == ("--", "lock")


def test_python_without_the_project_is_a_fault_that_names_make_install(doctor):
    assert list(doctor.package_lines({"pip": "23"}, 9)) == [
        ("!!", "packages", "facevox is not installed in this Python: make install")
    ]


@pytest.mark.parametrize(
    ("cuda", "names", "cards", "mark", "words"),
    [
        ("", "", "", "--", "works on the CPU"),
        ("13.0", "NVIDIA X", "NVIDIA X, 80 GiB, 580", "ok", "NVIDIA X (torch 2.13.0, CUDA 13.0"),
        ("", "", "NVIDIA X, 80 GiB, 580", "--", "make install CUDA=1"),
        ("13.0", "", "NVIDIA X, 80 GiB, 470", "--", "driver too old"),
    ],
)
def test_gpu_line_tells_a_cpu_build_from_a_missing_driver(doctor, cuda, names, cards, mark, words):
    line = doctor.gpu_line("2.13.0", cuda, names, cards)
    assert line[:2] == (mark, "GPU")
    assert words in line[2]


def test_missing_system_libraries_are_named_all_at_once_with_debians_packages(doctor):
    problems = {"cv2": "libGL.so.1: cannot open shared object file: No such file or directory"}
    line = doctor.describe_problems(problems, ["libGL.so.1", "libglib-2.0.so.0"])
    assert line.startswith(
        "cv2 cannot load libGL.so.1, libglib-2.0.so.0: sudo apt-get install libgl1 libglib2.0-0 "
    )
    unknown = doctor.describe_problems({"av": "libodd.so.7: cannot open shared object file: x"}, [])
    assert "libodd.so.7: install what provides it" in unknown


def test_other_import_errors_are_passed_on(doctor):
    assert "cv2: numpy.core failed" in doctor.describe_problems({"cv2": "numpy.core failed"}, ["libGL.so.1"])


@pytest.mark.slow
def test_only_imports_can_be_asked_for(doctor, monkeypatch, capsys):
    assert doctor.main(["--imports_only", "--timeout_s", "240"]) == 0
    monkeypatch.setattr(doctor, "_ask", lambda *_: ("cv2\tlibGL.so.1: cannot open shared object file", ""))
    capsys.readouterr()
    assert doctor.main(["--imports_only"]) == 1
    said = capsys.readouterr().out
    assert "apt-get install libgl1" in said
    assert said.count("\n") == 1


def test_program_that_hangs_is_given_up(doctor):
    answer, fault = doctor._ask("import time; time.sleep(30)", 0.2)
    assert answer == ""
    assert "not done within" in fault
