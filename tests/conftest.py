"""Eight CPU devices, compiled programs kept from run to run, absl flags ready; several files share the cores."""

import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

os.environ["ACRN_CACHE"] = tempfile.mkdtemp(prefix="acrn_cache_")  # never the user's own

import jax
import pytest
from absl import flags

if os.environ["JAX_PLATFORMS"] == "cpu":
    jax.config.update("jax_num_cpu_devices", 8)
flags.FLAGS.mark_as_parsed()

LONG = ("test_end_to_end", "test_chain")  # begin first, so that no core waits for them in the end
TOGETHER = ("data", "export", "report", "studies")  # folders whose files share what is made once a session


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """A process a core; none beside this one for a single file or test, -s, or a debugger."""
    files = {argument.partition("::")[0] for argument in config.args}
    alone = len(files) == 1 and files.pop().endswith(".py")
    watched = config.getoption("capture") == "no" or config.getoption("trace")
    return 0 if alone or watched else min(len(os.sched_getaffinity(0)), 4)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Whole files go to one process, and so do folders of TOGETHER."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            folder = pathlib.PurePath(file).parent
            return str(folder) if folder.name in TOGETHER else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)
