"""`make demo`: a shop on two nodes, its customers, and a rollout under their feet."""
