"""Lists the nets that are known by name, those that come with the package and those in the folder $ACRN_NETS.

./launch.sh models            # kind, size, scores, and whether the weights are those that the card is of
./launch.sh models --verify   # also runs each on drawn pictures; exit code 2 if one cannot be used

docs/models.md says what can be done with them.
"""

from absl import flags

from acrn_jax.cli import shell
from acrn_jax.report import table
from acrn_jax.runs import net_list

_VERIFY = flags.DEFINE_bool("verify", False, "Run each net on drawn pictures; exit code 2 if one cannot be used.")


def main(argv):
    del argv
    found = net_list.listed(verify=_VERIFY.value)
    if not found:
        print(net_list.none_there())
        return None
    print(table.render(net_list.table(found, verify=_VERIFY.value)), end="")
    return shell.WRONG_INPUT if _VERIFY.value and any(one.fault for one in found) else None


if __name__ == "__main__":
    shell.run(main)
