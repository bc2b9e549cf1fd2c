"""Several processes and hosts: launch options, consistency between ranks, liveness, and preemption."""
