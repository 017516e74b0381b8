"""What holds for any cluster, any packet and any history, on a real kernel."""
