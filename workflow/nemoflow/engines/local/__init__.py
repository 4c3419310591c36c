"""The local engine: NemotronH of transformers and plain PyTorch loops, on a CPU or one GPU.

Pretraining, supervised fine-tuning, GRPO and export of tiny models of the recipes' architecture.
`python -m nemoflow.engines.local JOB.json` runs one job. It reads what the cluster engines read
(blend.json with bin/idx, packed Parquet, RL JSONL) and writes checkpoints under the hub's names.
"""

from nemoflow.engines import device

device.without_kernels()
