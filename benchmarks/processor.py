"""Processor time, which other load on the machine does not change."""

import resource

import psutil


def ended_children_cpu_s() -> float:
    """Processor seconds, user and system, of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def family_cpu_s(pid: int) -> float:
    """Processor seconds of a process, of its children, and of those that have ended."""
    process = psutil.Process(pid)
    used = process.cpu_times()
    total = used.user + used.system + used.children_user + used.children_system
    for child in process.children():
        try:
            one = child.cpu_times()
        except psutil.NoSuchProcess:
            continue  # ended just now
        total += one.user + one.system
    return float(total)
