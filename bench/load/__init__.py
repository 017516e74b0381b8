"""What loads a node: packets, connections, requests and streams, and what tells of them."""
