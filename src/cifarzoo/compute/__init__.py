"""Where and how a computation runs: seeds, twins, the processor's tricks."""
