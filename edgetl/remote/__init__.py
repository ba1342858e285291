"""Artifacts, runs and models on another machine, over the system's own ssh.

The other machine needs a POSIX shell with coreutils or busybox, and edgetl only for `run_remote`.
"""

from edgetl.remote.command import run_remote
from edgetl.remote.pull import PullResult, pull
from edgetl.remote.push import PushResult, push
from edgetl.remote.rollback import RollbackResult, rollback

__all__ = ["PullResult", "PushResult", "RollbackResult", "pull", "push", "rollback", "run_remote"]
