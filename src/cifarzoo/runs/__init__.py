"""What a training run leaves behind."""

from cifarzoo.runs.folder import CHECKPOINT_NAME, RunFolder, network_sha256

__all__ = ["CHECKPOINT_NAME", "RunFolder", "network_sha256"]
