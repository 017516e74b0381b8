"""Mode ipvs as a process on a node, under traffic."""
