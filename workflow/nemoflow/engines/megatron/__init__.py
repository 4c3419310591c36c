"""The megatron engine: pretraining and fine-tuning by Megatron-Bridge, in its container.

`settings` says in Megatron-Bridge's words what a job's spec says in ours, without torch; `recipe`
builds the release's ConfigContainer from it; `validate` does so for many jobs before any is
submitted, on a machine without a GPU.
"""
