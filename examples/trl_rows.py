"""Train on preference rows that other projects made: TRL's layout and Step-DPO's."""

import sys
import tempfile

from scdpo.training import train

ROWS = [
    {"prompt": "2 + 3 =", "chosen": " 5", "rejected": " 6"},
    {"prompt": "Ann has 2 pens. She buys 4.", "chosen": " She has 6.", "rejected": " She has 2."},
    {
        "prompt": "A box holds 12 eggs. How many eggs do 3 boxes hold, and how many dozens?\n",
        "initial_reason_steps": "Step 1: 3 boxes hold 3 * 12 = 36 eggs.\nStep 2:",
        "chosen": " 36 / 12 = 3 dozens.",
        "rejected": " 36 / 3 = 12 dozens.",
    },
]

with tempfile.TemporaryDirectory() as folder:
    out = sys.argv[1] if len(sys.argv) > 1 else folder
    report = train("embedded", ROWS, out, learning_rate=1e-4, epochs=4)
    print(f"{report.n_naive} naive pairs and {report.n_step_controlled} step-controlled")
    print(f"loss {report.first_loss:.4f} → {report.final_loss:.4f} in {report.steps} steps")
    print(f"the policy is in {report.policy}")
