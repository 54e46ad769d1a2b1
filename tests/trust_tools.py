"""What a process uses (Linux), and figures in the test report."""

import os
from pathlib import Path


def cpu_seconds(pid):
    """CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid, what="VmHWM"):
    """Resident bytes of a process: VmHWM at most so far, VmRSS now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    return 0


def say(capsys, text):
    """Print a figure that stays visible when the test passes."""
    with capsys.disabled():
        print(f"\n    {text}", end="", flush=True)
