"""The same queue of points in other tools: `README.md` says how to run each and what is equal."""

from __future__ import annotations

import os

# Set before the first import of whom they concern, here and in each worker.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray makes its workers yield to all else (15); the other tools do not.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # so Ray spells it
# Ray's switch for "this machine only", meant for desktops: without it `_node_ip_address="127.0.0.1"` is replaced by the
# machine's address and every server of Ray listens on all interfaces.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
