"""A run as a noun: what a workdir holds, whichever kind of net it trains.

    run = runs.load("runs/market")        # AttributeRun, ReidCnnRun or AcrnRun
    run.config.loss.gamma, run.outputs(split)["feature"], run.weights(), run.attribute_net.names

Nothing is read before it is asked for, but for config.json.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from acrn_jax import COMMAND, build, files, results
from acrn_jax.data import pipeline, source
from acrn_jax.evaluation import embed
from acrn_jax.losses.weights import effective_weights
from acrn_jax.runs import inputs, nets, phases, workdir
from acrn_jax.runs.outputs import Predictions, kept
from acrn_jax.settings import Settings
from acrn_jax.train import optimizer, parallel


def load(
    folder: str | Path, *, attributes: Path | None = None, data_dir: str | None = None, unfinished: bool = False
) -> "AttributeRun | ReidCnnRun | AcrnRun":
    """The run in a workdir, or a net that ships.

    Args:
      folder: the workdir; or the folder or the name of a net (nets.py).
      attributes: where its attribute net is now; default: see `phases.locate`.
      data_dir: where its prepared data is now; default: likewise.
      unfinished: its net may be taken before training has come to its end.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: config.json is damaged.
    """
    folder = nets.place(folder)
    config = workdir.read_config(folder, attributes=attributes, data_dir=data_dir)
    kind = AttributeRun if config.of_attributes else AcrnRun if config.of_acrn else ReidCnnRun
    return kind(folder, config, unfinished)


def load_acrn(folder: str | Path, what: str, **where: Any) -> "AcrnRun":
    """As `load`; ValueError unless it is a run of ACRN, which `what` wants."""
    run = load(folder, **where)
    if not isinstance(run, AcrnRun):
        raise ValueError(f"{folder} is no ACRN run; {what}.")
    return run


@dataclasses.dataclass(frozen=True)
class Run:
    """What all kinds of runs have."""

    workdir: Path
    config: Settings
    unfinished: bool = False

    @property
    def phase(self) -> Path:
        """Folder of the last phase, whose net is the run's."""
        return self.workdir / self.config.last_phase

    @property
    def ships(self) -> bool:
        """Whether it is a net in its own folder (nets.py), into which nothing is written, and no workdir."""
        return nets.is_net(self.workdir)

    @functools.cached_property
    def state(self) -> dict[str, Any]:
        """Everything that the newest checkpoint holds; see `phases.load` for what is refused."""
        return phases.load(self.phase, unfinished=self.unfinished)

    @property
    def fingerprint(self) -> str:
        """Of the trained values."""
        return phases.fingerprint_of(self.state)

    @property
    def num_attributes(self) -> int:
        return 0

    @functools.cached_property
    def variables(self) -> dict[str, Any]:
        """Of the net: parameters, averaged where config.ema says so, and statistics."""
        return {"params": optimizer.final_params(self.state)["net"], "batch_stats": self.state["batch_stats"]}

    @property
    def module(self) -> Any:
        """The net, as a module of Flax."""
        params = self.variables["params"]
        people = params["classifier"]["bias"].size if "classifier" in params else None
        return build.net(self.config, attributes=self.num_attributes, people=people)

    def outputs(
        self, split: source.Split, *, batch: int | None = None, keep: Sequence[Path] = (), quiet: bool = False
    ) -> dict[str, np.ndarray]:
        """Everything that the net says about a split, name -> float32 [N, ...].

        Args:
          split: of N images.
          batch: images at a time; default: config.evaluate.batch.
          keep: files to take them from; they are kept in the first. Default: nothing is kept.
          quiet: print no line about it.
        """
        compute = functools.partial(self._compute, split, batch or self.config.evaluate.batch, quiet)
        if not keep:
            return compute()
        return kept(compute, split, f"{self.fingerprint} {split.fingerprint}", keep)

    def _compute(self, split, batch, quiet):
        data = self.config.data
        part = split.take(parallel.process_rows(len(split))) if jax.process_count() > 1 else split
        batches = pipeline.eval_batches(
            part, batch=min(batch, len(part)), threads=data.threads, height=data.height, width=data.width
        )
        kind = self.config.last_phase
        if not quiet:
            images = f"{len(split):,} image{'s' * (len(split) > 1)} of {split.name}"
            print(f"{kind} net of {self.workdir}: {images}", flush=True)
        found = embed.embed(self.module, self.variables, batches, mean=data.mean, deviation=data.deviation)
        return parallel.gather(found, len(split))

    def check_data(self) -> None:
        """ValueError if the training images, as they lie in config.data.dir, are not those that it was trained on.

        Where they are not at hand nothing is said: what needs them will say so.
        """
        if phases.begun(self.phase):
            with contextlib.suppress(FileNotFoundError):
                phases.check(self.phase, {"data": inputs.data(self.config)})

    def check_attributes(self) -> None:
        """ValueError if config.attributes.from is another net than the one that an ACRN was trained with."""

    def training_images(self, data_dir: str | None) -> source.Split:
        """What the last phase was trained on, from `data_dir` or else from where it lay in training."""
        try:
            there = load(self.workdir, data_dir=data_dir)
            there.check_data()
            return build.training_split(there.config)
        except (FileNotFoundError, ValueError):
            there = load(self.workdir)
            there.check_data()
            return build.training_split(there.config)


@dataclasses.dataclass(frozen=True)
class AttributeRun(Run):
    """An attribute net."""

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """attributes.json: attribute_names, dataset and fingerprint; refuses a net that is not finished."""
        if self.ships:
            card = nets.card(self.workdir)
            return {"attribute_names": card["attribute_names"], **card["training"]["split"]}
        file = self.workdir / "attributes.json"
        if not file.is_file():
            if phases.begun(self.phase):
                step, steps = phases.progress(self.phase)
                raise ValueError(
                    f"The attribute net {self.workdir} is not finished: it is at step {step}"
                    f"{f' of {steps}' if steps else ''}; run the command again that trained it, to go on (evaluate "
                    "takes it as it is with --unfinished)."
                )
            raise no_attribute_net(self.workdir)
        found = files.read_json(file, "attribute_names")
        trained = phases.read(self.phase) or {}
        if found["attribute_names"] != list(trained.get("attribute_names", found["attribute_names"])):
            raise ValueError(
                f"{file} names other attributes than {self.phase}/inputs.json, or in another order, so that no output "
                "is known by its name; bring the file back as training wrote it."
            )
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Of the attributes [A], in the net's order."""
        stored = phases.read(self.phase) or {}
        return tuple(stored["attribute_names"] if self.unfinished and stored else self.description["attribute_names"])

    @property
    def num_attributes(self) -> int:
        return len(self.names)

    @property
    def entry(self) -> dict[str, str]:
        """This net as an input of a phase; see phases.py."""
        return phases.entry(self.workdir, self.fingerprint, path=self.workdir)

    def predictions(self, split: source.Split, *, batch: int | None = None, keep: Sequence[Path] = ()) -> Predictions:
        """What the net says about a split; `batch` and `keep` as of `outputs`."""
        return Predictions(split.key, self.outputs(split, batch=batch, keep=keep)["attribute_logits"], self.names)

    @property
    def recognition(self) -> results.Recognition | None:
        """Its scores; None for a net that was not scored."""
        return recognition_of(self.workdir)

    @property
    def recognition_rates(self) -> dict[str, Any] | None:
        """How often the net is right, from its scores: "on" which images, and "mA" of each attribute.

        Of people whom training did not show, where there are such; None for a net that was not scored.
        """
        if (scored := self.recognition) is None:
            return None
        part, people = (scored.unseen, ", people whom training did not show") if scored.unseen else (scored, "")
        if scored.images_trained_on and not scored.unseen:
            people = f", of which {scored.images_trained_on:,} images were trained on"
        return {
            "on": f"{scored.dataset}, {scored.split}{people}",
            "mA": {entry.name: entry.mA for entry in part.attributes},
        }


def recognition_of(folder: Path) -> results.Recognition | None:
    """How well the attribute net in a workdir recognises, as recognition.json or a net's card says; None if neither."""
    if nets.is_net(folder):
        found = nets.card(folder).get("recognition")
        return results.Recognition.of(found) if found else None
    file = folder / "recognition.json"
    return results.Recognition.read(file) if file.is_file() else None


def attribute_net(folder: str | Path) -> AttributeRun:
    """The finished attribute net in a workdir.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not finished, or damaged.
    """
    folder = nets.place(folder)
    if not any((folder / name).is_file() for name in ("config.json", "attributes.json", "card.json")):
        raise no_attribute_net(folder)
    run = load(folder)
    if not isinstance(run, AttributeRun):
        raise no_attribute_net(folder)
    _ = run.description  # refuses what is not finished
    return run


def no_attribute_net(folder: str | Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"{folder} holds no finished attribute net (no attributes.json); name where it lies "
        "(--config.attributes.from=M in training, --attributes=M elsewhere), or train one with "
        f"{COMMAND} train --config=configs/mva_peta.py:small --workdir={folder} --config.data.dir=..."
        f"{nets.hint(folder)}"
    )


@dataclasses.dataclass(frozen=True)
class ReidCnnRun(Run):
    """A re-id net trained without attributes: the paper's ReIdCNN."""

    @property
    def scales(self) -> dict[str, float]:
        """s_f and s_a, which distances are divided by, as {"feature": s_f, "attribute": s_a}."""
        saved = self.state if self.config.last_phase == "reid" else phases.load(self.workdir / "reid")
        return {name: float(saved["scales"][name]) for name in ("feature", "attribute")}


@dataclasses.dataclass(frozen=True)
class AcrnRun(ReidCnnRun):
    """A re-id net trained with the attribute distances of a frozen attribute net."""

    @functools.cached_property
    def attribute_net(self) -> AttributeRun:
        return attribute_net(str(self.config.attributes.from_))

    def check_attributes(self) -> None:
        if phases.begun(self.phase):
            phases.check(self.phase, {"attributes": self.attribute_net.entry})

    def predictions(self, split_name: str, *, of: Settings | None = None, out: Path | None = None) -> Predictions:
        """What the attribute net says about a split, computed once and kept in `workdir.folder_on`/predictions.

        Args:
          split_name: of the data set.
          of: settings of another data set; default: the run's own.
          out: keeps them in out/predictions instead, where that folder does not have them.

        Of a net that ships they are kept in `out` alone.
        """
        split = build.open_split(of or self.config, split_name)
        home = workdir.folder_on(self.workdir, of and f"{of.data.name}/{of.data.config}")
        folders = [folder for folder in (out, None if self.ships else home) if folder is not None]
        places = [folder / "predictions" / f"{split_name}.npz" for folder in folders]
        return self.attribute_net.predictions(split, batch=self.config.evaluate.batch, keep=places)

    def training_attributes(self, *, out: Path | None = None) -> np.ndarray | None:
        """Attributes [N, A] of the training images, where the form of the weights asks for them; else None.

        They are kept in `out`, where the workdir does not have them; with None nowhere.
        """
        loss, data = self.config.loss, self.config.data
        if self.ships or loss.attribute_weights != "learned" or loss.weight_form != "unit_mean":
            return None
        self.check_data()
        people, _ = build.reid_splits(self.config)
        if out is not None:
            found = self.predictions(data.train_split, out=out)
        else:
            split = build.open_split(self.config, data.train_split)
            found = self.attribute_net.predictions(split, batch=self.config.evaluate.batch)
        return found.of(people, self.config.attributes.representation)

    def weights(self, train: np.ndarray | None = None) -> np.ndarray:
        """[A] the attribute weights w that distances use; form unit_mean wants training attributes [N, A]."""
        if self.ships:
            return nets.weights(self.workdir)
        loss, names = self.config.loss, self.attribute_net.names
        if loss.attribute_weights == "uniform":
            return np.ones(len(names), np.float32)
        if loss.attribute_weights == "given":
            return build.given_weights(self.config, names)
        raw = optimizer.final_params(self.state)["attribute_weights"]["raw"]
        some = None if train is None else train[:2000]
        return np.asarray(effective_weights(raw, form=loss.weight_form, attributes=some, distance=loss.distance))
