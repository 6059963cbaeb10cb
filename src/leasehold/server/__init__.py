"""The service: settings, its life from start to stop, several workers."""
