"""What endpoints use: reads, the write lane, waiting for locks, removal of expired records."""
