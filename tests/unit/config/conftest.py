"""Ways to load a configuration."""

import pytest
import yaml

from kproxy.config.loading import ConfigurationError, load_configuration
from tests.support.config.samples import HEADER


@pytest.fixture
def load(tmp_path):
    """Load a configuration from the fields of a dict or from text."""

    def load(fields, mode=None):
        text = fields if isinstance(fields, str) else yaml.safe_dump({**HEADER, **fields})
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return load_configuration(file, mode)

    return load


@pytest.fixture
def errors(load, tmp_path):
    """Return what is wrong with a configuration, without the file name of each line."""

    def errors(fields, mode=None):
        with pytest.raises(ConfigurationError) as caught:
            load(fields, mode)
        prefix = f"{tmp_path / 'config.yaml'}: "
        assert all(line.startswith(prefix) for line in caught.value.lines)
        assert all(line.isprintable() for line in caught.value.lines)
        return [line.removeprefix(prefix) for line in caught.value.lines]

    return errors
