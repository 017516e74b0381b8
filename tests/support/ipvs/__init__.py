"""The ipvs data path in tests."""
