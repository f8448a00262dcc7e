"""What can go wrong on the way from a configuration to a bundle.

TrainingError
  ConfigInvalid     the YAML does not parse, or a field is wrong; names the field
  DataInvalid       the data cannot be fetched, or a column, row or value does not fit
  RunUnusable       a run directory that holds no finished training
  CalibrationFailed held-out rows that do not allow the calibration of a task
  ParityFailed      the exported graphs do not give torch's scores
  ModuleUnfit       a module of one's own does not implement the stages that it must
  SpecInvalid       a specification does not fit the graph from elsewhere that it is about
"""

from __future__ import annotations


class TrainingError(Exception):
    """A model that could not be trained, exported or published."""


class ConfigInvalid(TrainingError):
    """The configuration does not parse, or one of its fields is wrong."""


class DataInvalid(TrainingError):
    """The data cannot be fetched, or does not fit what the configuration says of it."""


class RunUnusable(TrainingError):
    """The run directory holds no finished training, or is something else."""


class CalibrationFailed(TrainingError):
    """The held-out rows of a task do not allow the calibration that it asks for."""


class ParityFailed(TrainingError):
    """The exported graphs do not give the scores that torch gives."""


class ModuleUnfit(TrainingError):
    """A module does not implement the stages, or not for as many tasks as were named."""


class SpecInvalid(TrainingError):
    """The specification does not parse, or does not fit the graph that it is about."""
