"""The network, its file, and whole trainings: what is written, resumed, refused, predicted."""

import csv
import json
import signal

import numpy as np
import pytest
import torch
from gloo_processes import run_ranks
from landmark_folders import make_folder, train_on_rank
from torch import nn

from emotion.landmarks.features import Features
from emotion.landmarks.network import LandmarkModel, LandmarkNetwork, load_model, save_model
from emotion.landmarks.normalisation import normalise_landmarks
from emotion.landmarks.options import TrainConfig
from emotion.landmarks.run import class_report
from emotion.landmarks.split import split_table
from emotion.landmarks.table import load_table
from emotion.landmarks.task import all_devices, faces_per_step, settle_norms, usable_gpus
from emotion.scores.measures import confusion_counts
from emotion.scores.report import per_class
from facevox.errors import ExitCode, UserError
from facevox.training.checkpoint import load_checkpoint
from facevox.training.distributed import World

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ("--num_epochs", "12", "--batch_size", "16", "--device", "cpu", "--patience", "0")


def test_network_is_the_documents():
    layers = list(LandmarkNetwork(2).layers)
    kinds = [type(layer) for layer in layers]
    block = [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout]
    assert kinds == [*block, *block, nn.Linear, nn.ReLU, nn.Linear]
    sizes = [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)]
    assert sizes == [(1434, 512), (512, 256), (256, 128), (128, 2)]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.3, 0.2]


def test_settled_norms_hold_the_statistics_of_the_inputs():
    torch.manual_seed(0)
    network = LandmarkNetwork(2)
    inputs = torch.randn(50, 478, 3) + 3
    settle_norms(network, inputs)
    norm = network.layers[2]
    hidden = torch.relu(network.layers[0](inputs.flatten(1)))
    torch.testing.assert_close(norm.running_mean, hidden.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, hidden.var(dim=0), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1
    assert not network.training


def test_model_file_gives_the_same_probabilities_and_its_temperature_counts(tmp_path):
    torch.manual_seed(0)
    network = LandmarkNetwork(3).eval()
    model = LandmarkModel(
        network=network,
        class_names=("a", "b", "c"),
        features=Features("aligned"),
        temperature=2.5,
        notes={"x": 1},
    )
    save_model(tmp_path / "model.pth", model)
    raw, sizes = np.random.default_rng(0).random((4, 478, 3), np.float32), np.full((4, 2), 300)
    found = load_model(tmp_path).probabilities(raw, sizes)
    logits = network(torch.from_numpy(normalise_landmarks(raw, sizes, "aligned"))).detach().double()
    np.testing.assert_allclose(found, torch.softmax(logits / 2.5, dim=1).numpy(), atol=1e-12)
    assert found.sum(axis=1) == pytest.approx(1)


def test_file_of_another_model_is_refused(tmp_path):
    (tmp_path / "text.pth").write_text("x")
    torch.save({"kind": "other"}, tmp_path / "other.pth")
    for name, text in (("text.pth", "no checkpoint"), ("other.pth", "'other'"), ("none.pth", "no such file")):
        with pytest.raises(UserError, match=text):
            load_model(tmp_path / name)


def test_split_has_nobody_on_both_sides_and_missing_classes_are_told(tmp_path):
    folder = make_folder(tmp_path / "x")
    config = TrainConfig(landmarks_dir=folder, save_dir=tmp_path, class_names=("neutral", "anxiety"))
    train, validation = split_table(load_table(folder, config.class_names), config)
    assert not set(train.people) & set(validation.people)
    assert len(train) + len(validation) == 12 * 2 * 3
    other = TrainConfig(landmarks_dir=folder, save_dir=tmp_path, class_names=("neutral", "sad", "hurt"))
    with pytest.raises(UserError, match="no faces labelled sad, hurt"):
        split_table(load_table(folder, other.class_names), other)


def test_all_faults_of_a_configuration_are_told_at_once(tmp_path):
    with pytest.raises(UserError, match=r"--batch_size: 1.*--val_share: 1.*--class_names") as told:
        TrainConfig(
            landmarks_dir=tmp_path, save_dir=tmp_path, class_names=("a",), batch_size=1, val_share=1.0
        )
    assert "\n" not in str(told.value)


def test_training_learns_and_writes_model_scores_and_card(tmp_path, run_train, capsys):
    folder, out = make_folder(tmp_path / "x"), tmp_path / "out"
    names = ["neutral", "anxiety", "happy"]
    assert run_train("--landmarks_dir", folder, "--save_dir", out, "--class_names", *names, *QUICK) == 0
    report = json.loads((out / "evaluation" / "report.json").read_text(encoding="utf-8"))
    assert report["balanced_accuracy"]["value"] >= 0.9
    assert report["balanced_accuracy"]["low"] <= report["balanced_accuracy"]["value"]
    assert report["interval_over"] == "people"
    assert np.sum(report["confusion"]) == report["pictures"]
    history = json.loads((out / "history.json").read_text(encoding="utf-8"))
    assert {"train_loss", "val_loss", "train_accuracy", "val_accuracy"} <= history[0].keys()
    model = load_model(out)
    assert model.temperature == pytest.approx(report["calibration"]["temperature"], abs=1e-4)
    split = json.loads((out / "split.json").read_text(encoding="utf-8"))
    table = load_table(folder, names)
    assert set(split["validation_people"]) < set(table.people)
    # The file's answers on the validation people are those that were scored.
    rows = [row for row, person in enumerate(table.people) if person in split["validation_people"]]
    answers = model.probabilities(table.rows.read(rows), table.sizes[rows]).argmax(axis=1)
    right = np.array([names.index(table.labels[row]) for row in rows]) == answers
    assert right.mean() == pytest.approx(report["accuracy"], abs=1e-4)
    card = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "nobody is in both parts" in card
    assert "1434 → 512 → 256 → 128 → 3" in card
    for name in ("curves.png", "evaluation/confusion_matrix.png", "evaluation/reliability.png", "last.pth"):
        assert (out / name).stat().st_size > 1000
    table_text = (out / "evaluation" / "classification_report.txt").read_text(encoding="utf-8")
    assert all(name in table_text for name in names)
    assert "balanced accuracy" in capsys.readouterr().out
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert "facevox.training.trainer - DEBUG - epoch 12 of 12: " in log
    assert "emotion.landmarks.run - INFO - balanced accuracy" in log


def test_table_of_classes_has_the_figures_of_the_report():
    rng = np.random.default_rng(4)
    labels, answers = rng.integers(0, 3, 90), rng.integers(0, 4, 90)  # no face of the last class
    names = ["neutral", "anxiety", "happy", "sad"]
    counts = confusion_counts(labels, answers, 4)
    lines = [line.split() for line in class_report(labels, answers, names).splitlines() if line.strip()]
    for cells, row in zip(lines[1:5], per_class(counts, names), strict=True):
        assert cells[0] == row["class"]
        shown = [row[key] for key in ("precision", "recall", "f1", "pictures")]
        assert [float(cell) for cell in cells[1:]] == pytest.approx(shown, abs=1e-4)
    assert lines[5] == ["accuracy", f"{(labels == answers).mean():.4f}", "90"]


def test_shuffled_labels_give_chance(tmp_path, run_train):
    folder, out = make_folder(tmp_path / "x", num_people=40, per_person=2), tmp_path / "out"
    index = (folder / "index.csv").read_text(encoding="utf-8")
    rng = np.random.default_rng(0)
    lines = [
        line.replace(",neutral,", f",{rng.choice(['neutral', 'anxiety'])},").replace(
            ",anxiety,", f",{rng.choice(['neutral', 'anxiety'])},"
        )
        for line in index.splitlines()
    ]
    (folder / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert run_train("--landmarks_dir", folder, "--save_dir", out, *QUICK) == 0
    report = json.loads((out / "evaluation" / "report.json").read_text(encoding="utf-8"))
    assert report["balanced_accuracy"]["low"] < 0.5 < report["balanced_accuracy"]["high"]


def test_without_people_the_interval_draws_pictures_and_says_so(tmp_path, run_train, capsys):
    folder, out = make_folder(tmp_path / "x", with_people=False), tmp_path / "out"
    assert run_train("--landmarks_dir", folder, "--save_dir", out, *QUICK) == 0
    said = capsys.readouterr()
    assert "the split is by picture" in said.err
    assert "the interval draws pictures because no person is known" in said.out
    assert "people may be in both parts" in (out / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.resume
def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, run_train, monkeypatch):
    folder = make_folder(tmp_path / "x")
    options = ("--landmarks_dir", folder, *QUICK)
    assert run_train(*options, "--save_dir", tmp_path / "whole") == 0
    from emotion.landmarks.task import LandmarkTask

    steps = []
    plain = LandmarkTask.after_step

    def stop_in_the_middle(self: LandmarkTask) -> None:
        steps.append(1)
        if len(steps) == 11:  # of the third epoch
            signal.raise_signal(signal.SIGUSR1)
        plain(self)

    monkeypatch.setattr(LandmarkTask, "after_step", stop_in_the_middle)
    assert run_train(*options, "--save_dir", tmp_path / "parts") == ExitCode.STOPPED
    assert run_train(*options, "--save_dir", tmp_path / "parts") == 0
    for name, kind in (("model.pth", "network"), ("last.pth", "model")):
        whole, parts = (load_checkpoint(tmp_path / folder / name)[kind] for folder in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    reports = [(tmp_path / run / "evaluation" / "report.json").read_text() for run in ("whole", "parts")]
    assert reports[0] == reports[1]


def test_early_stopping_ends_before_the_epochs_are_done(tmp_path, run_train, capsys):
    folder = make_folder(tmp_path / "x")
    options = ("--num_epochs", "200", "--batch_size", "16", "--patience", "2", "--learning_rate", "0.01")
    assert run_train("--landmarks_dir", folder, "--save_dir", tmp_path / "out", *options) == 0
    assert "no better val_loss for 2 epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "give --zips"),
        (["--landmarks_dir", "{tmp}"], "has no index.csv"),
        (["--zips", "nowhere.zip"], "no such file or folder"),
        (["--landmarks_dir", "{tmp}/x", "--class_names", "happy", "hurt"], "no faces labelled hurt"),
        (["--landmarks_dir", "{tmp}/x", "--class_names", "happy", "happy"], "two or more different names"),
        (["--landmarks_dir", "{tmp}/one", "--class_names", "happy", "neutral"], "at least two are needed"),
    ],
)
def test_bad_use_of_training_ends_in_one_line_and_exit_code_2(tmp_path, run_train, capsys, options, text):
    make_folder(tmp_path / "x", num_people=3)
    make_folder(tmp_path / "one", num_people=1)
    given = [option.format(tmp=tmp_path) for option in options]
    assert run_train(*given, "--save_dir", tmp_path / "out", *QUICK) == ExitCode.USAGE
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert text in errors[0]


def test_other_settings_or_data_do_not_go_on_in_the_same_folder(tmp_path, run_train, capsys):
    folder, out = make_folder(tmp_path / "x"), tmp_path / "out"
    options = ("--landmarks_dir", folder, "--save_dir", out, "--num_epochs", "1", "--batch_size", "16")
    assert run_train(*options) == 0
    assert run_train(*options, "--normalisation", "aligned") == ExitCode.USAGE
    assert "normalisation 'scaled' → 'aligned'" in capsys.readouterr().err
    assert run_train(*options, "--normalisation", "aligned", "--resume", "never") == 0


def test_several_processes_must_extract_first(tmp_path, run_train, capsys, monkeypatch):
    for name, value in (("RANK", 0), ("WORLD_SIZE", 2), ("LOCAL_RANK", 0), ("MASTER_PORT", 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert run_train("--zips", "a.zip") == ExitCode.USAGE
    assert "run emotion/landmarks/extract.py first" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    folder, out = make_folder(tmp_path / "x"), tmp_path / "out"
    assert run_ranks(train_on_rank, 2, tmp_path, str(folder), str(out)) == [ExitCode.DONE, ExitCode.DONE]
    report = json.loads((out / "evaluation" / "report.json").read_text(encoding="utf-8"))
    assert report["balanced_accuracy"]["value"] >= 0.9
    assert len(load_checkpoint(out / "last.pth")["random"]) == 2


def test_one_process_uses_every_visible_gpu(monkeypatch):
    network, cuda = LandmarkNetwork(2), World(device=torch.device("cuda", 0))
    for num_gpus, kind in ((1, LandmarkNetwork), (2, nn.DataParallel)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda num_gpus=num_gpus: num_gpus)
        assert type(all_devices(network, cuda, 64)) is kind
    assert all_devices(network, World(device=torch.device("cpu")), 64) is network


def test_no_gpu_gets_a_single_face(monkeypatch, logged):
    for num_faces in range(2, 70):
        for num_visible in range(1, 17):
            # What DataParallel does with a batch is Tensor.chunk.
            sizes = [[len(c) for c in torch.zeros(num_faces).chunk(n + 1)] for n in range(num_visible)]
            assert usable_gpus(num_faces, num_visible) == max(len(each) for each in sizes if min(each) >= 2)
    given = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(nn, "DataParallel", lambda network, device_ids: given.append(device_ids) or network)
    network, cuda = LandmarkNetwork(2), World(device=torch.device("cuda", 0))
    assert all_devices(network, cuda, 8) is network
    assert given == [[0, 1, 2, 3]]
    assert "a step of 8 faces fills 4 of 8 GPUs" in logged.text
    logged.clear()
    all_devices(network, cuda, 64)
    assert given[1:] == [list(range(8))]
    assert not logged.records
    assert all_devices(network, cuda, 3) is network
    assert len(given) == 2


def test_processes_with_a_single_face_are_refused_in_one_line(tmp_path):
    config = TrainConfig(landmarks_dir=tmp_path, save_dir=tmp_path, batch_size=4)
    worlds = [World(device=torch.device("cpu"), rank=rank, size=2) for rank in range(2)]
    assert [faces_per_step(num_faces, config, worlds[0]) for num_faces in (4, 5, 9, 100)] == [2, 2, 4, 4]
    for world in worlds:
        with pytest.raises(UserError, match="3 faces to train on for 2 processes") as told:
            faces_per_step(3, config, world)
        assert "\n" not in str(told.value)


def test_dry_run_tells_counts_steps_time_and_disk_and_writes_nothing(tmp_path, run_train, capsys):
    folder = make_folder(tmp_path / "x")
    before = sorted(tmp_path.rglob("*"))
    options = ("--landmarks_dir", folder, "--save_dir", tmp_path / "out", *QUICK)
    assert run_train(*options, "--dry_run") == 0
    said = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert run_train(*options) == 0
    split = json.loads((tmp_path / "out" / "split.json").read_text(encoding="utf-8"))
    num_steps = 12 * (split["train"]["pictures"] // 16)
    people = {name: split[name]["people"] for name in ("train", "validation")}
    assert f"{split['train']['pictures']} faces of {people['train']} people to train on" in said
    assert f"of {people['validation']} others for validation" in said
    assert f"12 epochs, {num_steps} steps of " in said
    assert (load_checkpoint(tmp_path / "out" / "last.pth")["position"]["step"]) == num_steps
    # The weights, and two running means of each.
    told_mb = int(said.split("disk: ")[1].split(" MB")[0])
    assert told_mb == pytest.approx((tmp_path / "out" / "last.pth").stat().st_size / 1e6, rel=0.1)


def test_dry_run_of_archives_counts_their_pictures_and_writes_nothing(aihub_dir, tmp_path, run_train, capsys):
    zips = sorted((aihub_dir / "archives").rglob("*원천*기쁨_TRAIN*.zip"))
    options = ("--save_dir", tmp_path / "out", "--limit", "3", "--debug", *QUICK, "--dry_run")
    assert run_train("--zips", *zips, *options) == 0
    said = capsys.readouterr().out
    assert "3 pictures in 1 shards" in said
    assert "1 to do" in said
    assert "--dry_run with --landmarks_dir" in said
    assert not list(tmp_path.iterdir())


def test_from_archives_to_predictions(aihub_dir, tmp_path, run_train, run_predict, capsys):
    """Real FaceMesh: eight people, happy against neutral; then the model names faces in files and ZIPs."""
    out = tmp_path / "out"
    zips = sorted((aihub_dir / "archives").rglob("*원천*.zip"))
    wanted = [path for path in zips if "기쁨" in path.name or "중립" in path.name]
    options = ("--class_names", "neutral", "happy", "--debug", *QUICK)
    assert run_train("--zips", *wanted, "--save_dir", out, *options) == 0
    assert "32 pictures" in capsys.readouterr().err
    people = json.loads((out / "split.json").read_text(encoding="utf-8"))["validation_people"]
    pictures = [p for p in (aihub_dir / "folders").rglob("*.jp*g") if p.name.split("_")[0] in people]
    chosen = [path for path in pictures if "_기쁨_" in path.name][:2]
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "text.jpg").write_text("no picture")
    (folder / "b 'q'\n얼굴.jpg").write_bytes(chosen[1].read_bytes())
    options = ("--model", out, "--output_dir", tmp_path / "answers", "--debug")
    code = run_predict("--inputs", chosen[0], folder, wanted[0], *options)
    assert code == ExitCode.SOME_FAILED
    with (tmp_path / "answers" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["picture"]: row for row in csv.DictReader(file)}
    failed = [row for row in rows.values() if row["status"] == "failed"]
    assert [row["reason"].split(": ")[-1] for row in failed] == ["not a picture"]
    done = [row for row in rows.values() if row["status"] == "done"]
    assert len(done) >= 2 + 10
    for row in done:
        shares = {name: float(row[f"p_{name}"]) for name in ("neutral", "happy")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert row["expression"] == max(shares, key=lambda name: shares[name])
    assert rows[chosen[0].as_posix()]["status"] == "done"


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ("nowhere.jpg", "no such file or folder"),
        ("{tmp}/notes.txt", "a picture"),
        ("{tmp}/empty", "nothing below"),
    ],
)
def test_bad_inputs_of_prediction_end_in_one_line(tmp_path, run_predict, capsys, inputs, text):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    network = LandmarkNetwork(2)
    model = LandmarkModel(
        network=network, class_names=("a", "b"), features=Features("scaled"), temperature=1.0, notes={}
    )
    save_model(tmp_path / "model.pth", model)
    options = ("--model", tmp_path / "model.pth", "--output_dir", tmp_path / "out", "--debug")
    assert run_predict("--inputs", inputs.format(tmp=tmp_path), *options) == ExitCode.USAGE
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert text in errors[0]
