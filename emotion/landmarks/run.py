"""A whole training: landmarks in, and a folder with a model, its scores and its card out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.landmarks.card import LandmarkEvaluation, write_card
from emotion.landmarks.features import Features
from emotion.landmarks.network import MODEL_FILE, LandmarkNetwork, load_model, save_model
from emotion.landmarks.options import LANDMARKS, TrainConfig
from emotion.landmarks.split import Part, split_table
from emotion.landmarks.table import LandmarkTable, load_table
from emotion.landmarks.task import BatchReader, LandmarkTask, Notes, PartCounts, faces_per_step, score_part
from emotion.scores.calibration import fit_temperature
from emotion.scores.measures import balanced_accuracy, over_people
from emotion.scores.report import DIGITS, REPORT_FILE, Answers, evaluate, write_evaluation
from facevox.errors import UserError, one_line
from facevox.files import read_json, write_json, write_text
from facevox.intervals import interval_text
from facevox.mesh.kinds import FACE_MESH
from facevox.training import distributed
from facevox.training.batches import EpochBatches
from facevox.training.distributed import World
from facevox.training.history import write_curves
from facevox.training.run_folder import run_folder
from facevox.training.schedule import Interval
from facevox.training.seeding import seed_everything
from facevox.training.trainer import DONE, Estimate, Trainer, TrainerConfig, TrainingResult

logger = logging.getLogger(__name__)
SPLIT_FILE, EVALUATION_DIR, TABLE_FILE = "split.json", "evaluation", "classification_report.txt"
PEOPLE, PICTURES = "people", "pictures"
CHECKPOINT_INTERVAL = Interval(seconds=60.0)  # the state takes 11 MB
SAVE_INTERVAL = 5  # epochs
WARMUP = 0.05  # share of all steps
CLIP_NORM = 1.0


def run_training(config: TrainConfig, world: World, *, dry_run: bool = False) -> TrainingResult | Estimate:
    """Trains and evaluates; returns the result, with `dry_run` an estimate.

    Args:
        config: Of the training.
        world: This process's rank and device.
        dry_run: Try a few steps and report time and disk that the training would take; write nothing.

    Raises:
        UserError: No landmarks, a class that is missing, too few faces, another run in the folder.
    """
    with nullcontext() if dry_run else run_folder(config.save_dir):
        table = load_table(config.landmarks_dir, config.class_names)
        train, validation = split_table(table, config)
        notes = describe_data(table, train, validation, config)
        trainer = make_trainer(config, train, validation, world, notes)
        if not dry_run:
            split = _split_of(validation, config, notes)
            distributed.on_main(lambda: write_json(config.save_dir / SPLIT_FILE, split))
        if world.is_main:
            _announce(notes)
        result = trainer.estimate() if dry_run else trainer.run()
        if isinstance(result, Estimate):
            if world.is_main:
                for line in result.lines():
                    logger.info(line)
        elif world.is_main and result.status == DONE:
            finish(config, validation, result, notes)
        elif world.is_main:
            logger.info(result.message)
        table.close()
    return result


def make_trainer(config: TrainConfig, train: Part, validation: Part, world: World, notes: Notes) -> Trainer:
    """The trainer of the network, at the position of a stopped run if there is one.

    Raises:
        UserError: Too few faces for the processes.
    """
    seed_everything(config.seed)
    features = Features(config.normalisation, config.inputs, train.table.mesh)
    network = LandmarkNetwork(len(config.class_names), features.size).to(world.device)
    seed_everything(config.seed + 1 + world.rank)  # another dropout in each process
    batches = EpochBatches(
        len(train),
        faces_per_step(len(train), config, world),
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
    )
    trainer_config = TrainerConfig(
        save_dir=config.save_dir,
        num_epochs=config.num_epochs,
        learning_rate=config.learning_rate,
        warmup=WARMUP,
        clip_norm=CLIP_NORM,
        checkpoint_interval=CHECKPOINT_INTERVAL,
        save_interval=SAVE_INTERVAL,
        patience=config.patience,
        resume=config.resume,
        kind="emotion landmarks training",
        settings=config.lasting() | {"data": notes["data"], "mesh": features.mesh},
        implied={"inputs": LANDMARKS, "mesh": FACE_MESH},
    )
    task = LandmarkTask(network, config, train, validation, world, notes, features)
    loader = BatchReader(train, batches, features)
    return Trainer(task, batches, loader, trainer_config, world)


def describe_data(table: LandmarkTable, train: Part, validation: Part, config: TrainConfig) -> Notes:
    """Counts of both parts, and a hash of the data."""

    def count(part: Part) -> PartCounts:
        counts = np.bincount(part.labels, minlength=len(config.class_names)).tolist()
        classes = dict(zip(config.class_names, counts, strict=True))
        return {"pictures": len(part), "people": len(set(part.people)), "classes": classes}

    return {
        "train": count(train),
        "validation": count(validation),
        "interval_over": PEOPLE if any(table.people) else PICTURES,
        "unnamed": sum(not person for person in table.people),
        "data": table.hash(),
    }


def _announce(notes: Notes) -> None:
    """Logs the sizes of both parts, with a warning of a split by picture."""
    train, held_out = notes["train"], notes["validation"]
    if notes["interval_over"] == PEOPLE:
        logger.info(
            f"{train['pictures']} faces of {train['people']} people to train on, "
            f"{held_out['pictures']} of {held_out['people']} others for validation"
        )
        return
    logger.info(f"{train['pictures']} faces to train on, {held_out['pictures']} others for validation")
    logger.info(
        "no person is known of any face: the split is by picture, so people may be in both parts, and "
        "intervals draw pictures; expect less on people who are new"
    )


def _split_of(validation: Part, config: TrainConfig, notes: Notes) -> dict[str, object]:
    return {
        "seed": config.seed,
        "val_share": config.val_share,
        "train": notes["train"],
        "validation": notes["validation"],
        "validation_people": sorted(set(validation.people)),
        "data": notes["data"],
    }


def finish(config: TrainConfig, validation: Part, result: TrainingResult, notes: Notes) -> None:
    """Calibrates the model of the best epoch, and writes its scores, curves and card."""
    logger.info(result.message)
    model = load_model(config.save_dir / MODEL_FILE)
    logits = score_part(model.network, validation, np.arange(len(validation)), model.features)
    temperature = fit_temperature(logits, validation.labels)
    answers = Answers(validation.samples, validation.rows, logits, temperature)
    score = over_people(
        balanced_accuracy,
        validation.labels,
        logits.argmax(axis=1),
        validation.people,
        len(config.class_names),
    )
    report: LandmarkEvaluation = {
        **evaluate(answers, config.class_names),
        "balanced_accuracy": score.to_plain(DIGITS),
        "chance_balanced_accuracy": round(1 / len(config.class_names), DIGITS),
        "interval_over": notes["interval_over"],
        "normalisation": config.normalisation,
        "inputs": model.features.inputs,
        "mesh": model.features.mesh,
    }
    folder = config.save_dir / EVALUATION_DIR
    write_evaluation(folder, report, answers, spreadsheet_safe=config.spreadsheet_safe)
    write_curves(config.save_dir, result.history, result.best_epoch)
    file = config.save_dir / MODEL_FILE
    save_model(file, type(model)(**(vars(model) | {"temperature": temperature})))
    write_card(config, notes, result, report)
    table = class_report(validation.labels, logits.argmax(axis=1), config.class_names)
    write_text(config.save_dir / EVALUATION_DIR / TABLE_FILE, table)
    logger.info(describe_result(config.save_dir))


def class_report(
    labels_N: NDArray[np.int64], answers_N: NDArray[np.int64], class_names: Sequence[str]
) -> str:
    """scikit-learn's table of precision, recall, F1 and number of faces of each class, and their means."""
    from sklearn.metrics import classification_report  # a second, once a training

    table: str = classification_report(
        labels_N,
        answers_N,
        labels=range(len(class_names)),
        target_names=list(class_names),
        digits=DIGITS,
        zero_division=0,
    )
    return table


def describe_result(save_dir: Path) -> str:
    """The scores and the path of a trained model, for people."""
    file = save_dir / EVALUATION_DIR / REPORT_FILE
    try:
        return _result_text(save_dir, read_json(file))
    except UserError:
        raise
    except Exception as error:  # a file that was changed by hand may have anything in it
        raise UserError(f"{file}: not a report of this program: {one_line(error)}") from None


def _result_text(save_dir: Path, report: LandmarkEvaluation) -> str:
    score = report["balanced_accuracy"]
    interval = interval_text(score)
    over = report["interval_over"]
    note = "" if over == PEOPLE else ", the interval draws pictures because no person is known"
    return (
        f"balanced accuracy {score['value']:.3f}{f' ({interval})' if interval else ''}, "
        f"chance {report['chance_balanced_accuracy']:.3f}, on "
        f"{report['pictures']} faces of {report['people'] if over == PEOPLE else 'unknown'} people{note}\n"
        f"model: {save_dir / MODEL_FILE}"
    )
