"""What endpoints use: reads, the write lane, waiting for locks and changes, removal of expired records."""
