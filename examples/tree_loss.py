"""One's own training loop on a question's pairs: what they share is computed once."""

import copy

import torch

from scdpo.policies import load_policy
from scdpo.records import Pair, Step
from scdpo.training import dpo_loss, pair_sequences, tree_logps

policy = load_policy("embedded", device="cpu")
reference = copy.deepcopy(policy.model).requires_grad_(False)
optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-4)
SOLUTION = ["Ann has 3 boxes of 12 eggs.\n", "That is 3 * 12 = 36 eggs.\n", "The answer is 36."]
NEGATIVES = {0: "Ann has 12 boxes.", 1: "That is 3 + 12 = 15 eggs.", 2: "The answer is 63."}
names = {"id": "p", "problem_id": "q", "dataset": "mine", "format": "plain", "question": "?"}
steps = tuple(Step(kind="text", text=text) for text in SOLUTION)
pairs = [
    Pair(
        **names,
        kind="step_controlled" if k else "naive",
        prompt="How many eggs?\n",
        shared=steps[:k],
        chosen=steps[k:],
        rejected=(Step(kind="text", text=wrong),),
        branch_step=k,
        chosen_id="right",
        rejected_id=f"wrong-{k}",
    )
    for k, wrong in NEGATIVES.items()
]
sequences = pair_sequences(pairs, policy.tokenizer)  # chosen, rejected, chosen, rejected, …
before = tree_logps(reference, sequences)
for step in range(3):
    logps = tree_logps(policy.model, sequences)
    loss = dpo_loss(logps[0::2], logps[1::2], before[0::2], before[1::2], 0.1).loss_B.mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():.4f}")
