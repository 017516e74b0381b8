"""One run as a page: plots, tables and what limited each figure."""
