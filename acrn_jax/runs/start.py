"""What a phase starts from: values drawn anew, another run's phase, or a file of ImageNet weights."""

from pathlib import Path
from typing import Any

from flax import traverse_util

from acrn_jax import files
from acrn_jax.models import initialize, pretrained
from acrn_jax.runs import nets, phases
from acrn_jax.settings import Settings
from acrn_jax.train import optimizer


def start_input(init_from: str | Path) -> dict[str, str]:
    """What a phase starts from as an input of it: a phase's trained values, or a file's bytes."""
    path = located(init_from)
    if path.is_file():
        return phases.entry(path, files.sha256(path), path=path)
    return phases.entry(path, phases.fingerprint(path), path=path)


def located(init_from: str | Path) -> Path:
    """The file of weights or the phase's folder that config.init_from means: of a net that ships its only phase.

    Raises:
      FileNotFoundError: it is neither.
    """
    path = nets.place(init_from)
    if path.is_file():
        return path
    if nets.is_net(path):
        return path / nets.card(path)["config"]["phases"][-1]
    if not (path / "checkpoints").is_dir() and not nets.is_net(path.parent):
        found = sorted(str(p.parent) for p in path.glob("*/checkpoints"))
        known = f"name one of its phases: {', '.join(found)}" if found else "it wants a phase's folder (R/identity)"
        raise FileNotFoundError(
            f"config.init_from is {path}, neither a file of weights nor a phase nor a net; {known}.{nets.hint(path)}"
        )
    return path


def first_variables(
    config: Settings, module: Any, init_from: str | Path | None, *, same_people: bool = False
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Variables to start a phase from, and a report of where they come from (None if all are drawn).

    `init_from` is another run's phase, or a net that ships, from which everything but the classifier must be had, or a
    file of ImageNet weights for the trunk of MVA. The classifier is taken too where it is there and of the
    `same_people`; of attributes, the last layer where its shape fits. A net without instance normalisation can start
    one with it: its channels keep scale and bias.
    """
    fresh = initialize.variables(module, height=config.data.height, width=config.data.width, seed=config.seed)
    if not init_from:
        return fresh, None
    own: dict[str, Any] = dict(traverse_util.flatten_dict(fresh, sep="/"))
    path = located(init_from)
    if path.is_file():
        if config.model_name != "mva":
            raise ValueError(
                f"config.init_from is the file {path}: ImageNet weights fit the trunk of model mva alone; "
                f"{config.model_name} starts from scratch or from another run's phase (a folder)."
            )
        trunk = {name: leaf.shape for name, leaf in own.items() if _part(name) == "trunk"}
        source, found, dropped = pretrained.load(path, trunk, layout=config.model.layout)
        new, digest = own.keys() - found.keys(), start_input(path)["fingerprint"]
    else:
        saved = phases.load(path)
        source = "net" if nets.is_net(path.parent) else "run"
        found, digest = _with_instance_norm(_variables(saved), own), phases.fingerprint_of(saved)
        fits = {n for n, leaf in own.items() if n in found and found[n].shape == leaf.shape}
        new = {n for n in own if _part(n) == "classifier" and not (same_people and n in fits)}
        new |= {n for n in own if _part(n) == "attributes" and n in found and n not in fits}
        for name in sorted(own.keys() - new):
            shape = found[name].shape if name in found else "nothing"
            if shape != own[name].shape:
                raise ValueError(
                    f"{init_from} cannot start this net: {name} wants {own[name].shape}, found {shape}; "
                    "use a run with the same config.model and image size."
                )
        dropped = _by_part(found.keys() - own.keys())
    taken = own.keys() - new
    values = {name: found[name] if name in taken else leaf for name, leaf in own.items()}
    report = {"from": str(init_from), "source": source, "sha256": digest}
    report |= {"taken": _by_part(taken), "new": _by_part(new), "dropped": dropped}
    return traverse_util.unflatten_dict(values, sep="/"), report


def describe(report: dict[str, Any]) -> str:
    """One line about a report of `first_variables`."""
    counts = []
    for what in ("taken", "new", "dropped"):
        names = report[what]
        counts.append(f"{sum(map(len, names.values()))} {what} ({', '.join(names) or 'none'})")
    return f"start from {report['from']} ({report['source']}): {', '.join(counts)}."


def _variables(saved: dict[str, Any]) -> dict[str, Any]:
    """Variables of a stored state, by name."""
    params = optimizer.final_params(saved)["net"]
    return dict(traverse_util.flatten_dict({"params": params, "batch_stats": saved["batch_stats"]}, sep="/"))


def _with_instance_norm(found: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`found`, batch normalisation cut in two where `own` normalises the first half of channels within each image."""
    cut = dict(found)
    for name in own.keys() - found.keys():
        layer, instance, leaf = name.rpartition("/instance/")
        norm, half = f"{layer}/norm/", len(own[name])
        if instance and norm + leaf in found:
            cut[name] = found[norm + leaf][:half]
            statistics = [norm.replace("params/", "batch_stats/") + s for s in ("mean", "var")]
            cut |= {n: found[n][half:] for n in (norm + leaf, *statistics)}
    return cut


def _part(name):
    return name.split("/")[1]  # params/trunk/conv1/... is of the trunk


def _by_part(names):
    return {part: sorted(n for n in names if _part(n) == part) for part in sorted({_part(n) for n in names})}
