"""What to train (`TrainRequest`) and how this process does it (`Runtime`): arguments of `train` and `resume`."""

from __future__ import annotations

import dataclasses

from nemo_pipeline.errors import SettingsError
from siam_model.config import Precision, Preset, StudyName
from siam_model.methods import named_methods


@dataclasses.dataclass(frozen=True, slots=True)
class TrainRequest:
    """What a training is asked for. Everything that its numbers follow from, but the data.

    Attributes:
        preset: `paper`, `small` or `dynamics`.
        seed: random seed for split, initialisation and order; equal seeds give equal results on the same CPU.
        epochs: most epochs, instead of the preset's.
        folds: number of folds of a cross-validation, at least 2; None: a part of the subjects is held out.
        trials: combinations of h, dropouts and lambda that each fold tries (`siam_model.protocol.search`); 0: none.
        overrides: `{"model.hidden": "256", "train.learning_rate": "3e-4"}`.
        subset: `{"expression": "smile", "condition": "posed"}`, or one of them: the videos that take part; empty: all.
        precision: `32`, `bf16-mixed` or `16-mixed`.
        methods: names of `siam_model.methods.METHODS` that are trained and tested besides SIAM, in the same folds.
        study: `mechanisms`, `positions`, `modules` or `conditions`: train the set of runs of one comparison.
        distinct_subjects: codes such as `1` and `001` are different people; without it they are refused.
        init: absolute path of a run whose weights the training starts from; None: all start fresh.
        marks: absolute path of a file of marks (`nemo_pipeline.marks`), whose clips and frames are left out; None: the
            one next to the data, if there is one; `none`: marks are left out of account.
    """

    preset: Preset = "paper"
    seed: int = 0
    epochs: int | None = None
    folds: int | None = None
    trials: int = 0
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)
    subset: dict[str, str] = dataclasses.field(default_factory=dict)
    precision: Precision = "32"
    study: StudyName | None = None
    distinct_subjects: bool = False
    methods: tuple[str, ...] = ()
    init: str | None = None
    marks: str | None = None

    def check(self) -> None:
        """Raises NemoError for what no data could make right."""
        if "model.face_size" in self.overrides:
            raise SettingsError(
                "model.face_size follows from the data; prepare them again with another `size`.",
                "model.face_size",
            )
        if self.epochs is not None and "train.epochs" in self.overrides:
            raise SettingsError(
                "`epochs` and `train.epochs` say the same thing: leave one of them out.", "epochs"
            )
        if self.folds is not None and self.folds < 2:
            raise SettingsError(
                f"`folds` is {self.folds}; a cross-validation takes at least 2 folds.", "folds"
            )
        if self.trials < 0:
            raise SettingsError(
                f"`trials` is {self.trials}; it is a number of combinations, or 0 for no search.", "trials"
            )
        if self.methods:
            named_methods(",".join(self.methods))
            if self.study not in (None, "conditions"):
                raise SettingsError(
                    f"`methods` learn the same in every variant of the study {self.study}: train them in a run of "
                    "their own, without `study`, or with `study=conditions`.",
                    "methods",
                    "study",
                )


@dataclasses.dataclass(frozen=True, slots=True)
class Runtime:
    """How this process trains: nothing here is a property of the run.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        devices: GPUs (processes, with `cpu`) that share every batch.
        workers: processes that read data, in addition to this one.
        tensorboard: write TensorBoard's event files next to every history.csv.
        jobs: processes that train folds in parallel, each on a GPU of its own where there are several.
        fold: train this fold alone, from 0; the run's folder may be shared with processes that train the others.
        eager: do not use torch.compile, which a GPU otherwise does in a long training.
    """

    device: str = "auto"
    devices: int = 1
    workers: int = 0
    tensorboard: bool = False
    jobs: int = 1
    fold: int | None = None
    eager: bool = False

    def check(self, request: TrainRequest) -> None:
        """Raises NemoError when this machine lacks the device, the device the precision, there is no such fold, or
        they cannot be combined."""
        from siam_model.devices import check_precision, resolve_device
        from siam_model.training.fit import check_devices

        check_devices(self.device, self.devices)
        check_precision(request.precision, resolve_device(self.device))
        if self.jobs > 1 and self.devices > 1:
            raise SettingsError(
                "`jobs` gives every fold a GPU of its own; it cannot be combined with `devices`.",
                "jobs",
                "devices",
            )
        if self.jobs > 1 and request.folds is None:
            raise SettingsError(
                "`jobs` trains folds in parallel, and there are none: add `folds=K`, or leave it out.",
                "jobs",
                "folds",
            )
        if self.fold is not None:
            check_fold(self.fold, request.folds)


def check_fold(fold: int, folds: int | None) -> None:
    """Raises NemoError when there is no such fold."""
    if folds is None:
        raise SettingsError(
            f"`fold={fold}` is one of several folds; say how many with `folds`.", "fold", "folds"
        )
    if not 0 <= fold < folds:
        raise SettingsError(
            f"There is no fold {fold}: `folds={folds}` has the folds 0 to {folds - 1}.", "fold"
        )
