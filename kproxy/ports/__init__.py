"""What the control plane and its neighbours expect of each other: sources and data paths."""
