"""A whole run of `emotion/main.py`: the training, and everything that is written."""

import csv
import io
from pathlib import Path

import keras
import numpy as np

from emotion.classifier.batches import BatchConfig, Batches
from emotion.classifier.devices import Devices, set_up_devices
from emotion.classifier.export import describe_model, export_model, make_classifier
from emotion.classifier.mixing import MixConfig
from emotion.classifier.model_card import DataCounts, PartCounts, write_model_card
from emotion.classifier.network import backbone_layers, build_network
from emotion.classifier.pretrained import NONE, load_backbone
from emotion.classifier.start import EVALUATION_DIR, Start
from emotion.classifier.train_state import BEST_FILE, assign_all, load_state
from emotion.classifier.trainer import PHASES, TrainConfig, Trainer
from emotion.data.samples import Samples, class_weights, people_in_both
from emotion.logger_config import get_logger, log_hyperparameters
from emotion.scores.calibration import fit_temperature
from emotion.scores.report import Answers, Evaluation, evaluate, write_evaluation
from emotion.settings import Settings
from facevox.errors import ExitCode, UserError
from facevox.files import write_text
from facevox.model_card import CARD_FILE
from facevox.native_silence import native_silence
from facevox.progress import Progress, duration_text
from facevox.signals import StopFlag
from facevox.spreadsheets import safe_rows
from facevox.training.events import EventWriter, remove_events
from facevox.training.history import write_curves, write_history


def train_and_evaluate(
    settings: Settings, start: Start, device: str, stop: StopFlag, *, spreadsheet_safe: bool = False
) -> ExitCode:
    """Trains from `start`, exports and evaluates the best epoch; the exit code of the program.

    `spreadsheet_safe`: of the tables, see `facevox.spreadsheets`.
    """
    with native_silence():
        devices = set_up_devices(device)
    logger = get_logger("main")
    if devices.is_main:
        _log_start(settings, start, devices)
    trainer = make_trainer(settings, start, devices)
    if start.state is not None:
        trainer.restore(start.state)
        logger.info("continues after epoch %d, step %d", trainer.position.num_epochs, trainer.position.step)
    if not _run(trainer, stop):
        logger.info("stopped by %s; run the same command again", stop.signal_name or "another process")
        return ExitCode.STOPPED
    finish(trainer, settings, start, spreadsheet_safe=spreadsheet_safe)
    unreadable = {**trainer.train.unreadable, **trainer.validation.unreadable}
    if unreadable and devices.is_main:
        _write_unreadable(start.save_dir / "unreadable.csv", unreadable, spreadsheet_safe=spreadsheet_safe)
        logger.warning(
            "%d pictures could not be read: %s", len(unreadable), start.save_dir / "unreadable.csv"
        )
    return ExitCode.SOME_FAILED if unreadable else ExitCode.DONE


def estimate_run(settings: Settings, start: Start, device: str) -> list[str]:
    """Time and disk that a run would take, in lines for people: tries a few steps, writes nothing."""
    with native_silence():
        devices = set_up_devices(device)
    trainer = make_trainer(settings, start, devices)
    epochs, num_steps = trainer.config.epochs, trainer.train.num_steps
    parts = (("training", start.train), ("validation", start.validation))
    lines = [f"{name}: {len(part)} pictures of {part.num_people} people" for name, part in parts]
    total_s = 0.0
    for phase, step_s in trainer.estimate().items():
        seconds = epochs[phase] * num_steps * step_s
        total_s += seconds
        lines.append(
            f"{phase}: {epochs[phase]} epochs of {num_steps} steps, {step_s:.2g} s each: about "
            f"{duration_text(seconds)}"
        )
    weights = sum(variable.numpy().nbytes for variable in trainer.network.weights)
    return [
        *lines,
        f"about {duration_text(total_s)} in all, and the validation after each epoch",
        # The state: weights, average, two means of the optimizer; best epoch, h5, SavedModel, TFLite.
        f"disk: about {8 * weights / 1e6:.0f} MB below {settings.model_dir}",
    ]


def make_trainer(settings: Settings, start: Start, devices: Devices) -> Trainer:
    """A trainer at the very beginning, the backbone's weights loaded where no state will replace them."""
    mixing = MixConfig(
        mixup_alpha=settings.mixup_alpha,
        cutmix_alpha=settings.cutmix_alpha,
        p_mixup=settings.p_mixup,
        p_cutmix=settings.p_cutmix,
    )
    config = BatchConfig(
        img_size=settings.img_size, batch_size=settings.batch_size, seed=settings.seed, mixing=mixing
    )
    train, validation = (Batches(part, config, devices.strategy) for part in (start.train, start.validation))
    num_classes = len(settings.class_names)
    with devices.strategy.scope():
        network = build_network(settings.img_size, num_classes, settings.dropout_rate, seed=settings.seed)
        if start.state is None and settings.backbone_weights != NONE:
            backbone = keras.Model(network.input, backbone_layers(network)[-1].output)
            load_backbone(backbone, settings.backbone_weights)
    return Trainer(
        network,
        train,
        validation,
        class_weights(start.train.labels, num_classes),
        TrainConfig.of(settings, start.save_dir),
        devices,
        {**start.about, "is_complete": False},
    )


def finish(trainer: Trainer, settings: Settings, start: Start, *, spreadsheet_safe: bool) -> None:
    """Takes the best epoch, fits the temperature, evaluates, exports, writes the card; ends the run."""
    best = load_state(start.save_dir / BEST_FILE)
    if best is None:
        raise UserError(f"{start.save_dir / BEST_FILE}: missing; start again with --overwrite")
    assign_all(trainer.network.weights, best.arrays, str(start.save_dir / BEST_FILE))
    order = np.arange(len(start.validation))
    logits, is_read = trainer.logits(order)  # on all processes: they share the work
    if not trainer.devices.is_main:
        return
    if not is_read.any():
        raise UserError(f"DATA_DIR_VAL: {settings.data_dir_val}: none of its pictures can be read")
    order, logits = order[is_read], logits[is_read]
    temperature = round(fit_temperature(logits, start.validation.labels[order]), 4)
    about = describe_model(settings.class_names, settings.img_size, settings.crop_margin, temperature)
    classifier = make_classifier(
        best.arrays, settings.img_size, len(settings.class_names), settings.dropout_rate, temperature
    )
    answers = Answers(start.validation, order, logits, temperature)
    report = evaluate(answers, settings.class_names)
    folder = settings.model_dir / EVALUATION_DIR
    write_evaluation(folder, report, answers, spreadsheet_safe=spreadsheet_safe)
    with native_silence():
        paths = export_model(classifier, about, settings.model_dir)
    data = _count_data(start, len(trainer.train.unreadable) + len(trainer.validation.unreadable))
    write_model_card(
        settings.model_dir / CARD_FILE, about, data, start.about["settings"], trainer.history, report
    )
    trainer.about = {**trainer.about, "is_complete": True}
    trainer.save()
    _log_end(report, paths, settings.model_dir)


def _run(trainer: Trainer, stop: StopFlag) -> bool:
    """Trains with progress, history, curves and TensorBoard; true at the end, False if it was stopped."""
    save_dir, logger, is_main = trainer.config.save_dir, get_logger("main"), trainer.devices.is_main
    if not is_main:
        return trainer.run(lambda: bool(stop), lambda row: None, lambda step, loss: None)
    if trainer.position.num_updates == 0:
        remove_events(save_dir / "tensorboard")
    num_steps = trainer.train.num_steps
    with EventWriter(save_dir / "tensorboard", trainer.position.num_updates) as events:
        bars: list[Progress] = []

        def on_step(step: int, loss: float) -> None:
            if not bars:
                label = f"epoch {trainer.position.num_epochs + 1}"
                bars.append(Progress(num_steps, label, "step").__enter__())
                bars[0].count = step - 1
            bars[0].update(note=f"loss {loss:.3f}")

        def on_epoch(row: dict[str, float]) -> None:
            bars.pop().__exit__(None, None, None)
            logger.info(
                "epoch %d (%s): loss %.4f, val_loss %.4f, val_accuracy %.3f, val_macro_f1 %.3f, "
                "learning rate %.2g, %.1f pictures/s",
                *(row["epoch"], PHASES[int(row["phase"])], row["loss"], row["val_loss"]),
                *(row["val_accuracy"], row["val_macro_f1"], row["learning_rate"], row["items_per_s"]),
            )
            events.scalars(
                {name: value for name, value in row.items() if name != "epoch"}, trainer.position.num_updates
            )
            write_history(save_dir, trainer.history)
            curves = [{k: v for k, v in epoch.items() if k != "phase"} for epoch in trainer.history]
            write_curves(save_dir, curves, int(trainer.best["epoch"]))

        try:
            return trainer.run(lambda: bool(stop), on_epoch, on_step)
        finally:
            for bar in bars:
                bar.__exit__(None, None, None)


def _count_data(start: Start, num_unreadable: int) -> DataCounts:
    return {
        "train": _count(start.train),
        "validation": _count(start.validation),
        "people_in_both": people_in_both(start.train, start.validation),
        "unreadable": num_unreadable,
    }


def _count(part: Samples) -> PartCounts:
    return {"pictures": len(part), "people": part.num_people, "voted": part.num_voted}


def _log_start(settings: Settings, start: Start, devices: Devices) -> None:
    logger = get_logger("main")
    log_hyperparameters(
        logger,
        {
            "GPU 사용": devices.num_gpus > 0,
            "백본": "MobileNetV3Large",
            "정밀도": devices.precision,
            "장치": f"{devices.strategy.num_replicas_in_sync} replicas, {devices.num_workers} processes",
            **start.about["settings"],
        },
    )
    for name, part in (("training", start.train), ("validation", start.validation)):
        logger.info("%s: %d pictures of %d people", name, len(part), part.num_people)
    both = people_in_both(start.train, start.validation)
    if both:
        logger.warning("LEAK: %d people are in training and validation: the scores will be too good", both)
    if settings.backbone_weights == NONE and settings.epochs_head > 0:
        logger.warning("EPOCHS_HEAD=%d trains on a backbone of random weights", settings.epochs_head)
    if settings.backbone_weights == NONE and (
        settings.freeze_bn_mode != "none" or settings.unfreeze_from > 0
    ):
        logger.warning(
            "BACKBONE_WEIGHTS=none, but FREEZE_BN_MODE=%s and UNFREEZE_FROM=%g keep parts of it as they were "
            "drawn; from scratch take none and 0",
            *(settings.freeze_bn_mode, settings.unfreeze_from),
        )


def _log_end(report: Evaluation, paths: list[Path], model_dir: Path) -> None:
    score, logger = report["macro_f1"], get_logger("main")
    ends = "" if score["low"] is None else f" ({score['low']:.3f} to {score['high']:.3f})"
    logger.info(
        "macro-F1 %.3f%s on %d people never trained on, chance %.3f",
        *(score["value"], ends, report["people"], report["chance_macro_f1"]),
    )
    logger.info("written: %s, %s", ", ".join(path.name for path in paths), model_dir)


def _write_unreadable(path: Path, reasons: dict[str, str], *, spreadsheet_safe: bool) -> None:
    buffer = io.StringIO()
    rows = [("crop", "reason"), *sorted(reasons.items())]
    csv.writer(buffer, lineterminator="\n").writerows(safe_rows(rows) if spreadsheet_safe else rows)
    write_text(path, buffer.getvalue())
