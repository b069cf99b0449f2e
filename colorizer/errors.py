"""Errors that a user can cause. Each message says what is wrong, what was received and what to do."""


class ColorizerError(Exception):
    """Base of every error that a user of the package, the command line or the app can cause."""


class ConfigError(ColorizerError):
    """A setting is unknown or out of its range."""


class DataError(ColorizerError):
    """A data set is missing, damaged or cannot be downloaded."""


class ImageError(ColorizerError):
    """The bytes or the array are not a picture that this package accepts."""


class ModelError(ColorizerError):
    """A saved model is missing, damaged or was not made by this package."""


class TrainingError(ColorizerError):
    """A training run cannot start or had to be given up."""


class ClusterError(ColorizerError):
    """Ray is not installed, its cluster cannot be reached, or its workers keep dying."""
