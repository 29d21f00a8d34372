"""Where trials run, on this machine or on a Ray cluster: rules, and one suite of tests for all."""
