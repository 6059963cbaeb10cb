"""What the operating system gives and asks of one process."""
