"""Text in the forms that others write and read: YAML, JSON, UTF-8, URLs."""
