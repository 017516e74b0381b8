"""Numbers: each module is a command that measures one thing and writes it down as JSON."""
