"""Processor time, which other load on the machine does not change."""

import resource


def ended_children_cpu_s() -> float:
    """Processor seconds, user and system, of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
