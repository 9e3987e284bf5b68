#!/usr/bin/env bash
# The front door of acrn_jax: ./launch.sh VERB [flags]. Makes its own environment on first use; holds no numbers.
set -euo pipefail

VERBS="demo prepare reproduce train adapt extract evaluate calibrate ablate ledger report search describe models export bench test python"

usage() {
  cat <<'USAGE'
usage: ./launch.sh VERB [flags]

  demo       the whole method on built-in people: prints the table of methods, writes report.html
  prepare    turns raw images into a prepared data set, or looks at them with --check
  reproduce  trains all phases of a config, evaluates them and writes the report
  train      trains one phase of a config
  adapt      measures an attribute net's batch statistics anew on unlabelled images of a target
  extract    writes the features of a trained run
  evaluate   ranks gallery against query and writes results.json; or scores anyone's features
  calibrate  fits and judges the probability that two pictures show one person, on people of your choice
  ablate     trains the arms of a study, or scores settings of finished runs, and compares them
  ledger     sets attributes' weights beside all that they might follow, with error bars
  report     writes report.html from the result files of a run
  search     finds the pictures of a folder that look most alike, by image, by attributes or both
  describe   says which attributes pictures show: yes, no or unknown, with probabilities
  models     lists the nets that are known by name, with sizes, scores and whether they are whole
  export     writes a trained run as a bundle for other programs, or as a net that is known by name
  bench      measures speed and memory as ratios; --list names the benchmarks
  test       runs the tests; its arguments go to pytest
  python     runs the environment's Python, e.g. on a script of yours that imports acrn_jax

./launch.sh VERB --help lists the flags of a verb and the keys of its config, --help=TEXT searches them; with --debug an
error shows its traceback. Exit codes: docs/clusters.md. ./launch.sh --version names the code. Where the package
acrn_jax is installed, acrn VERB is the same as ./launch.sh VERB.
The same command on several hosts works as one (sbatch, mpirun, gcloud, ssh): docs/clusters.md has examples.
Environment variables, all optional:
  ACRN_ACCELERATOR  cpu, cuda12, cuda13 or tpu: which jax to install; default: by what the machine has
  ACRN_PYTHON       Python 3.11 or newer to make the environment with; default: the newest found up to 3.13
  ACRN_VENV         folder of the environment; default: .venv beside launch.sh
USAGE
}

say() { printf 'acrn_jax: %s\n' "$*" >&2; }
die() { say "$@" && exit 2; }

nearest() { # the verb that begins like "$1", or else the one with the fewest letters to change, insert or delete
  local typed=${1:0:20} verb best least=99 i j corner above cost row
  for verb in $VERBS; do
    if [[ $verb == "$typed"* ]]; then best=$verb && break; fi
    for ((j = 0; j <= ${#verb}; j++)); do row[j]=$j; done
    for ((i = 1; i <= ${#typed}; i++)); do
      corner=${row[0]} row[0]=$i
      for ((j = 1; j <= ${#verb}; j++)); do
        above=${row[j]} cost=$corner
        [[ ${typed:i-1:1} == "${verb:j-1:1}" ]] || cost=$((1 + (corner < above ? corner : above)))
        row[j]=$((cost <= row[j - 1] ? cost : row[j - 1] + 1))
        corner=$above
      done
    done
    if ((row[${#verb}] < least)); then least=${row[${#verb}]} best=$verb; fi
  done
  echo "$best"
}

# --- the environment -------------------------------------------------------------------------------------------------
# $VENV/acrn_stamp says what was installed: hash of the requirements, accelerator, Python. It says "unfinished" from
# the folder's first moment until the last package is in, so that a stopped installation is never taken for ready.

requirements_hash() {
  local hash=sha256sum
  command -v sha256sum >/dev/null || hash="shasum -a 256"
  hash=$(cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" | $hash)
  echo "${hash%% *}"
}

ready() {
  had_hash="" had_accelerator="" had_python=""
  [[ -f $VENV/acrn_stamp ]] && read -r had_hash had_accelerator had_python <"$VENV/acrn_stamp"
  [[ -x $VENV/bin/python && $had_hash == "$HASH" && ${ACRN_ACCELERATOR:-$had_accelerator} == "$had_accelerator" &&
    ${ACRN_PYTHON:-$had_python} == "$had_python" ]]
}

accelerator() { # what jax is to run on, by what the machine has
  local driver capability
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sort -n | sed -n '1s/\..*//p') || true
  if [[ $driver =~ ^[0-9]+$ ]]; then
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -n | sed -n '1s/\.//p') || true
    if ((driver >= 580)) && [[ $capability =~ ^[0-9]+$ ]] && ((capability >= 75)); then # CUDA 13 begins at Turing
      echo cuda13
    elif ((driver >= 525)); then
      echo cuda12
    else
      say "the NVIDIA driver $driver is older than CUDA 12 needs (525); installing jax for the CPU"
      echo cpu
    fi
  elif [[ -e /dev/accel0 ]] || { [[ -e /dev/vfio/0 ]] && grep -qs 0x1ae0 /sys/bus/pci/devices/*/vendor; }; then
    echo tpu
  else
    echo cpu
  fi
}

answers() { # is "$1" a Python of version $2 that runs, and can make environments where uv cannot?
  "$1" -c "import sys; sys.exit(not ($2))
$([[ $UV ]] || echo 'import ensurepip, venv')" >/dev/null 2>&1
}

find_python() { # newest of 3.13, 3.12, 3.11; each is run, for a name on the PATH may be a shim that fails
  local minor found
  for minor in 13 12 11; do
    while IFS= read -r found; do
      if [[ -x $found ]] && answers "$found" "sys.version_info[:2] == (3, $minor)"; then
        echo "$found"
        return
      fi
    done < <(
      type -aP "python3.$minor" python3 python
      printf '%s\n' "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/3.$minor."*/bin/python3 \
        "${HOME:-}/.local/share/uv/python/cpython-3.$minor."*/bin/python3
    )
  done
  [[ $UV ]] && echo 3.12 # uv brings it
}

make_environment() {
  mkdir -p "$(dirname "$VENV")"
  if command -v flock >/dev/null; then
    exec 9>"$VENV.lock"
    flock -n 9 || { say "waiting for another launch that installs into $VENV" && flock 9; }
    if ready; then return; fi
  fi

  local accelerator=${ACRN_ACCELERATOR:-} python=${ACRN_PYTHON:-} extras=(--extra test --extra docs)
  [[ $accelerator ]] || accelerator=$(accelerator)
  case $accelerator in
    cpu) ;;
    cuda12 | cuda13 | tpu) extras+=(--extra "$accelerator") ;;
    *) die "ACRN_ACCELERATOR is '$accelerator'; it can be cpu, cuda12, cuda13 or tpu." ;;
  esac
  UV=$(command -v uv) && "$UV" --version >/dev/null 2>&1 || UV=""

  if [[ $had_hash && $had_hash != unfinished && $had_accelerator == "$accelerator" ]] &&
    [[ ${python:-$had_python} == "$had_python" ]] && "$VENV/bin/python" -c "" 2>/dev/null; then
    python=$had_python
    say "updating the environment in $VENV"
  else
    [[ $had_hash || ! -e $VENV || (-d $VENV && -z $(ls -A "$VENV")) ]] ||
      die "$VENV exists and launch.sh did not make it; move it away, or name another folder with ACRN_VENV."
    if [[ $python ]]; then
      answers "$python" "sys.version_info >= (3, 11)" ||
        die "ACRN_PYTHON is '$python', which does not run as Python 3.11 or newer$([[ $UV ]] || echo " with venv and ensurepip")."
    else
      python=$(find_python) || die "found no Python 3.11, 3.12 or 3.13 with venv; install one, or uv, or name one with ACRN_PYTHON."
    fi
    say "making the environment in $VENV with $python, jax for $accelerator; once, it takes a minute or two"
    rm -rf "$VENV"
    mkdir "$VENV"
    echo unfinished >"$VENV/acrn_stamp"
    if [[ $UV ]]; then
      "$UV" venv --quiet --allow-existing --python "$python" "$VENV" 9>&-
    else
      "$python" -m venv "$VENV" 9>&-
    fi || die "$python could not make an environment in $VENV; see above."
  fi

  echo unfinished >"$VENV/acrn_stamp"
  if [[ ! $UV ]]; then
    UV=$VENV/bin/uv
    [[ -x $UV ]] || "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$ROOT/constraints.txt" uv 9>&- ||
      die "pip could not install uv into $VENV; see above."
  fi
  # Where Python may not write bytecode, it would compile all packages at every start: 8 seconds.
  [[ ! ${PYTHONDONTWRITEBYTECODE:-} ]] || extras+=(--compile-bytecode)
  (cd "$ROOT" && "$UV" pip install $([[ -t 2 ]] || echo --quiet) --python "$VENV/bin/python" --requirements pyproject.toml \
    "${extras[@]}" --constraints constraints.txt 9>&-) || die "could not install the packages into $VENV; see above."
  echo "$HASH $accelerator $python" >"$VENV/acrn_stamp.new"
  mv "$VENV/acrn_stamp.new" "$VENV/acrn_stamp"
}

# --- the verb --------------------------------------------------------------------------------------------------------

self=${BASH_SOURCE[0]}
while [[ -L $self ]]; do # a link to launch.sh may lie anywhere
  folder=$(CDPATH="" cd -P "$(dirname "$self")" && pwd) self=$(readlink "$self")
  [[ $self == /* ]] || self=$folder/$self
done
ROOT=$(CDPATH="" cd -P "$(dirname "$self")" && pwd)

case ${1:-} in
  "" | help | -h | -help | --help) usage && exit ;;
esac
verb=$1 && shift
case " $VERBS --version " in
  *" ${verb// /?} "*) ;;
  *) die "there is no verb '$verb'; did you mean '$(nearest "$verb")'? ./launch.sh --help lists them all." ;;
esac

VENV=${ACRN_VENV:-$ROOT/.venv}
[[ $VENV == /* ]] || VENV=$PWD/$VENV
VENV=${VENV%/}
HASH=$(requirements_hash)
ready || { make_environment && exec 9>&-; } # the verb must not hold the lock

export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} # with -P: not the caller's folder
exec "$VENV/bin/python" -P -m acrn_jax "$verb" "$@" # sets the variables that the verb wants: acrn_jax/cli/main.py
