"""Turns raw files into a prepared data set (TFDS, ArrayRecord), whole or not at all.

./launch.sh prepare --dataset=peta --config_name=random_0 --raw_dir=FOLDER --data_dir=data/tfds

--raw_dir is the folder that the release was unpacked into, at any known nesting, or its zip or tar archive. --check
looks without writing: counts beside the official ones, names, people in two splits, unreadable and repeated images.
"""

import contextlib
import difflib
import fcntl
import hashlib
import importlib
import inspect
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import tensorflow_datasets as tfds
from absl import app, flags, logging

from acrn_jax import COMMAND
from acrn_jax.data_prep import archives, checks, disk, paths, pictures, prepared, reid
from acrn_jax.data_prep.mixture import parts as parts_of


class Dataset(NamedTuple):
    """How one data set is prepared; its builder is data_prep/NAME/NAME_dataset_builder.py."""

    options: tuple[str, ...]  # flags that it takes
    needs: tuple[str, ...] = ()  # those without which it cannot begin
    free_names: bool = False  # config names are the user's to choose


DEFAULT = "default"  # the config that is meant where none is named
ALLOWANCES = ("allow_partial", "allow_overlap")  # options of every set that is read from files
DRAWN = ("pattern", "seed", "train_share", "skip_unmatched")  # options of image_folder without a CSV
FILES = ("split_file", "partition", "csv", "peta_mat", "attributes_mat", "protocol_mat")  # options that name a file
DATASETS = {
    "peta": Dataset(("raw_dir", "peta_mat", "split_file", "partition", "seed", "colours"), needs=("raw_dir",)),
    "image_folder": Dataset(("raw_dir", "csv", *DRAWN), needs=("raw_dir",), free_names=True),
    "mixture": Dataset(("parts",), needs=("parts",), free_names=True),
    "market1501": Dataset(("raw_dir", "attributes_mat"), needs=("raw_dir",)),
    "dukemtmc_reid": Dataset(("raw_dir", "attributes_mat"), needs=("raw_dir",)),
    "msmt17": Dataset(("raw_dir",), needs=("raw_dir",)),
    "cuhk01": Dataset(("raw_dir",), needs=("raw_dir",)),
    "cuhk03": Dataset(("raw_dir",), needs=("raw_dir",)),
    "cuhk03_np": Dataset(("raw_dir", "protocol_mat"), needs=("raw_dir",)),
    "synthetic_pedestrians": Dataset(()),
}


def prepare(dataset: str, config_name: str | None = None, *, data_dir: str | os.PathLike, **options) -> pathlib.Path:
    """Prepares one config of one data set, unless it is there already.

    Args:
      dataset: a name in DATASETS.
      config_name: one of the data set's configs; may be left out where there is one alone, or one called default.
      data_dir: where prepared data sets lie; this one goes to data_dir/dataset/config_name/version.
      options: what the data set takes, such as raw_dir, split_file, csv, peta_mat (paths), seed (int), allow_partial or
        allow_overlap (bool); None is unset.

    Returns:
      The prepared folder.

    Raises:
      ValueError: an unknown name or option, input that is not as wanted, or a set prepared with other options.
      FileNotFoundError: a missing file or folder.
      OSError: too little room on the disk, or another `prepare` of the same set in progress.
    """
    builder_class, config_name, options = _resolve(dataset, config_name, options)
    data_dir = pathlib.Path(data_dir)
    options = _with_parts_dir(options, data_dir)
    final = data_dir / dataset / config_name / str(builder_class.VERSION)
    if _is_prepared(final, options):
        _say(f"Already prepared: {final}")
        return final
    _check_needs(dataset, options)
    with disk.writing(data_dir), _staging(data_dir, f".preparing-{dataset}-{config_name}") as staging:
        if _is_prepared(final, options):  # by another process, while this one waited for nothing
            return final
        arguments = {"config": config_name, "data_dir": staging / "data"}
        if issubclass(builder_class, reid.ContentsBuilder):
            builder = builder_class(options=_unpacked(options, staging / "raw"), **arguments)
            images = checks.image_files(builder.contents)
            checks.check_room(images, data_dir)
            notes = [*builder.contents.notes, *checks.check_images(images)]
        else:  # draws its images itself
            builder, notes = builder_class(**arguments, **options, **_file_format(builder_class)), []
        _say("Writing ...")
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS tells of the temporary folder
            if not sys.stderr.isatty():
                tfds.disable_progress_bar()
            builder.download_and_prepare(file_format="array_record")
        _write_json(pathlib.Path(builder.data_path) / "fingerprint.json", prepared.fingerprint(builder))
        _write_json(pathlib.Path(builder.data_path) / "options.json", _traces(options))
        about = {"summary": reid.summary(prepared.labels(builder)), "notes": notes}
        _write_json(pathlib.Path(builder.data_path) / "notes.json", about)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.rename(builder.data_path, final)
    return final


def check(
    dataset: str, config_name: str | None = None, *, data_dir: str | os.PathLike | None = None, **options
) -> tuple[str, list[str], list[str]]:
    """Looks at raw files without writing a data set; without a raw_dir, at a prepared one.

    Args:
      dataset: a name in DATASETS.
      config_name: as `prepare` takes it.
      data_dir: where an archive is unpacked for the while (where it is not there, in the system's temporary folder),
        or where the prepared set lies.
      options: as `prepare` takes them.

    Returns:
      A table of counts beside the official ones, faults (each keeps the set from being prepared without
      --allow_partial), and notes.

    Raises:
      ValueError: what `prepare` raises before it looks at single files.
      FileNotFoundError: a missing file or folder.
    """
    builder_class, config_name, options = _resolve(dataset, config_name, options)
    options = _with_parts_dir(options, data_dir)
    if not {"raw_dir", "parts"} & options.keys() and data_dir is not None:
        return _check_prepared(pathlib.Path(data_dir) / dataset / config_name / str(builder_class.VERSION))
    if not issubclass(builder_class, reid.ContentsBuilder):
        raise ValueError(f"{dataset} draws its images itself; there is nothing to check before it is prepared.")
    _check_needs(dataset, options)
    place = data_dir if data_dir is not None and pathlib.Path(data_dir).is_dir() else tempfile.gettempdir()
    with disk.writing(place), tempfile.TemporaryDirectory(dir=place, prefix=".checking-") as temporary:
        folder = pathlib.Path(temporary)
        found = builder_class(
            config=config_name, options=_unpacked(options, folder / "raw"), lenient=True, data_dir=folder / "data"
        ).contents
        images = checks.image_files(found)
        looks = checks.look_at(images)
        faults = [*found.faults, *found.short(), *(f"{p} ({look.fault})" for p, look in looks.items() if look.fault)]
        notes = [f"the same bytes: {' and '.join(map(str, group))}" for group in checks.repeated(images)]
        notes = [*found.notes, *pictures.notes(looks), *notes]
    rows = [("split", "images", "officially", "people", "officially")]
    for split, counts in found.counts().items():
        wanted = found.official.get(split)
        beside = [f"{number:,}" for number in wanted] if wanted else ["-", "-"]
        rows.append((split, f"{counts.images:,}", beside[0], f"{counts.people:,}", beside[1]))
    return "\n".join(filter(None, (prepared.aligned(rows), reid.summary(found)))), faults, notes


def _check_prepared(folder: pathlib.Path) -> tuple[str, list[str], list[str]]:
    """That a prepared set still holds what was written."""
    if not _is_prepared(folder, {}, strict=False):
        raise FileNotFoundError(f"There is no prepared set {folder}; with --raw_dir, --check looks at raw files.")
    builder = tfds.builder_from_directory(folder)
    marks, now = json.loads((folder / "fingerprint.json").read_text()), prepared.fingerprint(builder)
    changed = [split for split in marks.keys() | now.keys() if marks.get(split) != now.get(split)]
    allowed = json.loads((folder / "options.json").read_text()).get("allow_overlap", False)
    found = reid.examine(prepared.labels(builder), allow_overlap=allowed)
    records = (record for split in builder.info.splits for record in prepared.records(builder, split))
    looks = {record["file_name"].decode(): pictures.look(record["image"]) for record in records}
    faults = [f"{folder}: {split} is not what was written" for split in sorted(changed)]
    faults += [f"{name} ({look.fault})" for name, look in looks.items() if look.fault]
    text = "\n".join(filter(None, (prepared.table(folder), reid.summary(found))))
    return text, [*faults, *found.faults], [*found.notes, *pictures.notes(looks)]


def _resolve(dataset: str, config_name: str | None, options: dict) -> tuple[type, str, dict]:
    """(builder class, config's name, options that are set), or ValueError for a name that there is not."""
    _one_of(dataset, DATASETS, what="data set")
    options = {name: value for name, value in options.items() if value is not None}
    for name in options:
        if name not in (*DATASETS[dataset].options, *ALLOWANCES):
            takes = " and ".join(f"--{option}" for option in DATASETS[dataset].options) or "none"
            raise ValueError(f"{dataset} takes no --{name}; it takes {takes}.")
    builder_class = importlib.import_module(f"acrn_jax.data_prep.{dataset}.{dataset}_dataset_builder").Builder
    if issubclass(builder_class, reid.ContentsBuilder):
        options = builder_class.completed(options)
    else:
        options = {name: value for name, value in options.items() if name not in ALLOWANCES}
    return builder_class, _config_name(dataset, config_name, list(builder_class.builder_configs)), options


def _check_needs(dataset: str, options: dict) -> None:
    for name in DATASETS[dataset].needs:
        if name not in options:
            raise ValueError(f"{dataset} needs --{name}.")


def _with_parts_dir(options: dict, data_dir: str | os.PathLike | None) -> dict:
    """The options, with where a mixture finds its parts: beside it."""
    if "parts" not in options:
        return options
    if data_dir is None:
        raise ValueError("--parts are looked for in --data_dir, which is missing; name where they lie prepared.")
    return options | {"parts_dir": data_dir}


def _unpacked(options: dict, folder: pathlib.Path) -> dict:
    """The options, with `raw_dir` unpacked to `folder` where it is an archive."""
    if "raw_dir" not in options or not archives.is_archive(options["raw_dir"]):
        return options
    _say(f"Unpacking {options['raw_dir']} ...")
    archives.unpack(options["raw_dir"], folder)
    return options | {"raw_dir": folder}


def _one_of(name: str, names: Iterable[str], *, what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise ValueError(
            f"No {what} {name!r}; {f'did you mean {near[0]}?' if near else f'there are {_listed(names)}.'}"
        )


def _listed(names: Iterable[str]) -> str:
    """The names, with runs of numbered ones shortened."""
    groups = [list(group) for _, group in itertools.groupby(names, key=lambda name: re.sub(r"_\d+$", "_N", name))]
    return ", ".join(group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}" for group in groups)


def _config_name(dataset: str, config_name: str | None, names: list[str]) -> str:
    if config_name is None and (len(names) == 1 or DEFAULT in names):
        return names[0] if len(names) == 1 else DEFAULT
    if config_name is None:
        raise ValueError(f"{dataset} needs --config_name; there are {_listed(names)}.")
    if not DATASETS[dataset].free_names:
        _one_of(config_name, names, what=f"config of {dataset}")
    elif not re.fullmatch(r"\w[\w.-]*", config_name):
        raise ValueError(f"A config is named with letters, digits, '_', '.' and '-', not {config_name!r}.")
    return config_name


def _traces(options: dict) -> dict:
    """What of the options decides the contents: values, and for files given by name the hash of what they hold."""
    traces = {name: value for name, value in options.items() if name in ("colours", *DRAWN, *ALLOWANCES)}
    for name in FILES:
        if name in options and pathlib.Path(options[name]).is_file():
            traces[name + "_sha256"] = hashlib.sha256(pathlib.Path(options[name]).read_bytes()).hexdigest()
    return traces | (parts_of.traces(options["parts_dir"], options["parts"]) if "parts" in options else {})


def _is_prepared(final: pathlib.Path, options: dict, *, strict: bool = True) -> bool:
    """Whether the folder is there; an error where it was made with other options than these (if `strict`)."""
    if not final.exists():
        return False
    try:
        before = json.loads((final / "options.json").read_text())
    except (OSError, ValueError):
        raise ValueError(f"{final} was not written by prepare, or not wholly; remove it and start again.") from None
    now = _traces(options)
    defaults = {"seed": 0, "train_share": 0.5, "colours": False}
    defaults |= {"split_file_sha256": None, "attributes_mat_sha256": None, "partition_sha256": None}
    others = ("csv_sha256", "protocol_mat_sha256", "pattern", "parts", "parts_sha256")
    for name in (*defaults, *others) if strict else ():
        default = defaults.get(name, before.get(name))  # the others come with what is there
        if before.get(name, default) != now.get(name, default):
            raise ValueError(
                f"{final} was prepared with {name} {before.get(name, default)}, asked for is {now.get(name, default)}; "
                "remove that folder or choose another --data_dir."
            )
    return True


def _file_format(builder_class: type) -> dict:
    """The format as keyword where the builder does not fix it itself."""
    return {"file_format": "array_record"} if "file_format" in inspect.signature(builder_class).parameters else {}


@contextlib.contextmanager
def _staging(data_dir: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """A folder in `data_dir` for what is not finished, emptied of what an earlier try left, and removed at the end."""
    staging, mine = data_dir / name, not data_dir.exists()
    staging.mkdir(parents=True, exist_ok=True)
    with open(staging / "lock", "w") as lock:
        try:
            fcntl.flock(
                lock, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # let go by the system when the process ends, however it ends
        except OSError:
            raise OSError(f"Another prepare is writing {staging}; wait for it, or stop it.") from None
        for part in ("data", "raw"):
            shutil.rmtree(staging / part, ignore_errors=True)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if mine:
                with contextlib.suppress(OSError):  # there is something in it
                    data_dir.rmdir()


def _write_json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def define_flags() -> None:
    """Not when imported: the functions here also serve programs that have flags of their own."""
    flags.DEFINE_string("dataset", None, f"What to prepare: {', '.join(DATASETS)}.")
    flags.DEFINE_string("config_name", None, "Which config of it; data_prep/DATASET/README.md lists them.")
    paths.define_folder("data_dir", None, "Where prepared data sets lie.")
    paths.define_path("raw_dir", None, "The files as they were released: the folder, or the zip or tar archive.")
    flags.DEFINE_bool("check", False, "Look at the raw files (without --raw_dir: at the prepared set), write nothing.")
    flags.DEFINE_bool("allow_partial", None, "Prepare also what is not the whole release; results then say partial.")
    flags.DEFINE_bool("allow_overlap", None, "Prepare also where people of train are in query or gallery.")
    paths.define_file("attributes_mat", None, "market_attribute.mat or duke_attribute.mat, for labels of the people.")
    paths.define_file("protocol_mat", None, "cuhk03_np: cuhk03_new_protocol_config_*.mat, if not in --raw_dir.")
    paths.define_file("peta_mat", None, "PETA.mat, where it does not lie in --raw_dir.")
    paths.define_file("split_file", None, "CSV path,role that replaces a drawn split.")
    paths.define_file("partition", None, "peta: indices of the published split, for the zero_shot_ configs.")
    paths.define_file("csv", None, "image_folder: CSV path,person_id,camera_id,split,attributes...")
    flags.DEFINE_string("pattern", None, "image_folder without --csv: how files are named, '{person}/{}' by default.")
    flags.DEFINE_float("train_share", None, "image_folder without --csv: share of the people to train on, 0.5.")
    flags.DEFINE_bool("skip_unmatched", None, "image_folder: pass over pictures that --pattern does not match.")
    flags.DEFINE_string("parts", None, "mixture: DATASET/CONFIG:SPLIT+SPLIT,..., prepared in --data_dir.")
    flags.DEFINE_integer("seed", None, "Seed of what is drawn, 0 by default.", lower_bound=0)
    flags.DEFINE_bool(
        "colours", None, "peta: 44 colours of clothes, shoes and hair as labels beside the 35 attributes."
    )
    flags.DEFINE_bool("debug", False, "Show the traceback behind an error.")


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        return _complain(f"unexpected argument {argv[1]!r}; everything is a flag, such as --dataset=peta.")
    logging.set_verbosity(logging.ERROR)  # TFDS tells much, and of configs that are meant to be custom
    terminated = _interrupted_by(signal.SIGTERM)
    try:
        for name in ("dataset", "data_dir"):
            if flags.FLAGS[name].value is None and not (name == "data_dir" and flags.FLAGS.check):
                raise ValueError(f"--{name} is missing; {COMMAND} prepare --help lists the flags.")
        names = ("raw_dir", "parts", "colours", *DRAWN, *ALLOWANCES, *FILES)
        wanted = {"data_dir": flags.FLAGS.data_dir} | {name: flags.FLAGS[name].value for name in names}
        if flags.FLAGS.check:
            return _print_check(*check(flags.FLAGS.dataset, flags.FLAGS.config_name, **wanted))
        folder = prepare(flags.FLAGS.dataset, flags.FLAGS.config_name, **wanted)
    except (ValueError, OSError) as error:
        if flags.FLAGS.debug:
            raise
        return _complain(disk.sentence(error))
    except KeyboardInterrupt:
        code = os.EX_TEMPFAIL if terminated else 130
        return _complain("interrupted, nothing was written; the same command starts again.", code)
    print("\n".join(text for text in (prepared.table(folder), prepared.told(folder), str(folder)) if text))
    return 0


def _interrupted_by(number: int) -> list[int]:
    """From now on the signal does what ctrl-C does, and is added to the list."""
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(number, interrupt)
    return received


def _print_check(counts: str, faults: list[str], notes: list[str], *, shown: int = 10) -> int:
    """Prints what `check` found; 1 where there are faults."""
    print(counts)
    for what, found in (("fault", faults), ("note", notes)):
        print(f"{len(found)} {what}{'s' * (len(found) != 1)}" + (":" if found else ""))
        for sentence in found[:shown]:
            print(f"  {sentence}")
        if len(found) > shown:
            print(f"  and {len(found) - shown:,} more")
    return 1 if faults else 0


def _parse(argv: list[str]) -> list[str]:
    if wanted := next((a.partition("=")[2].lower() for a in argv if re.match("--?help=", a)), None):
        own = (f"  --{flag.name}  {flag.help}" for flag in flags.FLAGS.get_flags_for_module(sys.argv[0]))
        found = [line for line in own if wanted in line.lower()]
        print("\n".join(found) or f"No flag of prepare has {wanted!r} in its name or description; --help lists all.")
        sys.exit()
    try:
        sys.modules["__main__"].__doc__ = __doc__.replace("./launch.sh", COMMAND)  # which --help shows
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_complain(str(error)))
    except SystemExit:  # of --help, which absl takes for a failure
        sys.exit()


def _complain(sentence: str, code: int = 2) -> int:
    _say(f"acrn_jax: {' '.join(sentence.split())}")
    return code


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=_parse)
