"""Every error a user can cause is one sentence: what, where, what to do.

EdgetlError
├── DataError        the pictures, or the folders they lie in
├── ModelError       the pretrained model: its source, its classifier, its operators
├── ArtifactsError   a prepared directory: missing, altered, from a newer edgetl
├── EngineError      no engine, two that clash, or one that refuses
├── RunError         a run directory: in the way, unfinished, not resumable
└── DeployError      the deployed file does not agree with the run
"""


class EdgetlError(Exception):
    """Base of all errors that the caller can mend; the message is meant to be read by people."""


class DataError(EdgetlError):
    """The data set or one of its samples cannot be used."""


class ModelError(EdgetlError):
    """The pretrained model cannot be loaded, exported, cut or given gradients."""


class ArtifactsError(EdgetlError):
    """A prepared directory is incomplete, altered or not readable by this version."""


class EngineError(EdgetlError):
    """No engine can train here, or the one asked for refused."""


class RunError(EdgetlError):
    """A run directory is in the way, damaged, or does not fit the command."""


class DeployError(EdgetlError):
    """A deployed model cannot be written, read, or does not agree with its run."""
