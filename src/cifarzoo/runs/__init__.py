"""What a training run leaves behind."""

from cifarzoo.runs.facts import check_facts
from cifarzoo.runs.folder import CHECKPOINT_NAME, Hold, RunFolder, network_sha256

__all__ = ["CHECKPOINT_NAME", "Hold", "RunFolder", "check_facts", "network_sha256"]
