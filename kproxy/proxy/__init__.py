"""Puts a proxy together; the only importer of data paths."""
