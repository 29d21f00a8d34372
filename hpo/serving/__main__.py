"""Starts the serving process: `python -m hpo.serving ORDER`, an order as JSON."""

import sys

from hpo.serving.process import main

sys.exit(main(sys.argv[1]))
