"""What runs, and in which order: flows, the command line, settings."""
