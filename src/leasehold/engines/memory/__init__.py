"""A store in memory. The file engine uses it, too."""
