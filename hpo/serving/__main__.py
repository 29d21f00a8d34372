"""Starts the serving process: `python -m hpo.serving ORDER`, an order as JSON."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while it imports, Ctrl-C ends it without a traceback
    if sys.flags.safe_path:  # the file of a filter may import what lies beside it, but that takes no library's place
        sys.path.append("")
    from hpo.serving.process import main  # late: after the signal

    sys.exit(main(sys.argv[1]))
