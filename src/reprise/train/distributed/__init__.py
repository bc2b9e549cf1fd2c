"""Several processes and hosts: launch options, consistency, liveness and preemption."""
