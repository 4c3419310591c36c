"""Reinforcement learning by NeMo-RL: Ray on every node of a job, its own driver on the first."""
