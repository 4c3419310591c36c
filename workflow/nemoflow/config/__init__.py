"""Config: one YAML per run, one per data set; strict models, parents, overrides."""

from nemoflow.config.load import Config

__all__ = ["Config"]
