"""What several data paths need of the kernel; nothing here knows a data path."""
