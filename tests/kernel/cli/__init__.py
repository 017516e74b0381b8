"""The command line on a real kernel."""
