"""`python -m tests.fake_api <folder> <services> <endpoints>`: see `tests.fake_api.load`."""

import sys

from tests.fake_api.load import main

main(sys.argv[1:])
