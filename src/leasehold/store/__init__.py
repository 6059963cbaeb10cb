"""What endpoints talk to: reads, the write lane, waiting for locks, cleaning up."""
