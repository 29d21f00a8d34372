"""`python -m hpo` is `hpo`."""

from hpo.cli.main import main

main()
