"""The processor's tricks, put around any network for the time of a run."""

from cifarzoo.compute.cpu.kernels import cpu_kernels
from cifarzoo.compute.cpu.layout import fast_layout, needs_contiguous
from cifarzoo.compute.cpu.pages import keep_freed_memory

__all__ = ["cpu_kernels", "fast_layout", "keep_freed_memory", "needs_contiguous"]
