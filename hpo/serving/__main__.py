"""Starts the serving process: `python -m hpo.serving ORDER`, an order as JSON."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while it imports, Ctrl-C ends it without a traceback
    from hpo.serving.process import main  # late: after the signal

    sys.exit(main(sys.argv[1]))
