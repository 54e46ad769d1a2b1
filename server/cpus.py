"""How many processors this process may really use."""

import math
import os
from pathlib import Path
from typing import Optional


def _quota(root: Path, proc: Path) -> Optional[float]:
    """The CPU quota of this process's control group in cores (cgroup v2, then v1), or None when there is none."""
    folders = [root]
    try:
        for line in proc.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                folders.insert(0, root / path.lstrip("/"))
            elif "cpu" in controllers.split(","):
                folders += [root / "cpu" / path.lstrip("/"), root / "cpu"]
    except (OSError, ValueError):
        pass
    best: Optional[float] = None
    for folder in folders:
        try:
            quota, period = (folder / "cpu.max").read_text().split()[:2]
        except (OSError, ValueError):
            try:
                quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                period = (folder / "cpu.cfs_period_us").read_text().strip()
            except OSError:
                continue
        try:
            cores = float(quota) / float(period)
        except (ValueError, ZeroDivisionError):  # "max": no limit
            continue
        if cores > 0:
            best = cores if best is None else min(best, cores)
    return best


def available(root: str = "/sys/fs/cgroup", proc: str = "/proc/self/cgroup") -> int:
    """Processors this process may use: its affinity, capped by its control group's quota (rounded up); at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    quota = _quota(Path(root), Path(proc))
    return max(1, count if quota is None else min(count, math.ceil(quota)))
