"""The causal, chunked model in torch: only training and export need it, never the run-time."""

from rtsr.model.config import CONFIGURATIONS, ModelConfig, configuration
from rtsr.model.generator import Generator, parameter_count

__all__ = ["CONFIGURATIONS", "Generator", "ModelConfig", "configuration", "parameter_count"]
