"""What a training run leaves behind."""

from cifarzoo.runs.folder import (
    CHECKPOINT_NAME,
    Hold,
    RunFolder,
    check_checksums,
    network_sha256,
)
from cifarzoo.runs.notes import check_facts

__all__ = [
    "CHECKPOINT_NAME",
    "Hold",
    "RunFolder",
    "check_checksums",
    "check_facts",
    "network_sha256",
]
