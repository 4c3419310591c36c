"""Engines that train: `megatron` and `nemo_rl` on a cluster, `local` for tiny models."""
