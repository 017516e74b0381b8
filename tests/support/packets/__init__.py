"""The packet table: what a packet deserves, in words and numbers, and who is asked about it."""
