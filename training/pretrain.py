"""Pretrain a method on unlabelled images, export the backbone, show what it learned.

accelerate launch training/pretrain.py --config training/configs/quickstart.yaml [key=value ...]
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from rs_models.commands.pretrain import main
    from rs_models.settings import run_script

    sys.exit(run_script(main, sys.argv[1:]))
