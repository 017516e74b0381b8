"""`python -m tests.support.fake_api <folder> <services> <endpoints>`: see `load` beside it."""

import sys

from tests.support.fake_api.load import main

main(sys.argv[1:])
