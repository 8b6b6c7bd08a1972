"""Publish a run, a data set or a Space on the Hub: the same as `rs-models push`.

python training/publish.py FOLDER [--dry-run] [--help]
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from rs_models.commands.push import main
    from rs_models.settings import run_script

    sys.exit(run_script(main, sys.argv[1:]))
