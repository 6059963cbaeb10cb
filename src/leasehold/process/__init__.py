"""What one process gets from the operating system: file descriptors, signals, standard streams, memory."""
