"""Run a program of a Megatron-LM checkout on the checkout's own megatron-core.

    python megatron_tool.py CHECKOUT MORE tools/preprocess_data.py ARGUMENT…

What its modules import for training and is not installed here, transformer-engine for one, is an
empty stand-in; preparing data calls none of it.
"""

import runpy
import sys

from nemoflow.engines.megatron import stubs


def main(checkout: str, more: str, program: str, *arguments: str) -> None:
    """As `python CHECKOUT/PROGRAM ARGUMENT…`."""
    sys.path.insert(0, checkout)
    sys.path.append(more)
    stubs.install()
    sys.argv = [f"{checkout}/{program}", *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
