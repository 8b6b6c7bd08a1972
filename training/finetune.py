"""Fine-tune a backbone on few labels: classification, multilabel, segmentation or detection.

accelerate launch training/finetune.py --config training/configs/finetune_segmentation.yaml \
    model=outputs/quickstart/export data.name=synthetic labels=20
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from rs_models.commands.finetune import main
    from rs_models.settings import run_script

    sys.exit(run_script(main, sys.argv[1:]))
