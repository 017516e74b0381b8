"""A small cluster network of namespaces, and real packets through it.

The harness knows no data path: it builds the network, sends packets and says what became of them.
Everything runs in one thread of one process, since a socket stays in the namespace where it was
made; so the network needs no clean-up but the end of its process.
"""
