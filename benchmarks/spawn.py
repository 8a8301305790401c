"""A small parent for a process that is measured: `python -I -S spawn.py RESULT LOG COMMAND...`.

The peak memory that Linux reports of a process is never less than what its parent held when it was
started, so the parent imports next to nothing. RESULT gets the exit status, the seconds from start to end as
this caller sees them, and the resources of the process and of the children it waited for; LOG gets what it
printed.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    result, log, *command = sys.argv[1:]
    printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    actions = [(os.POSIX_SPAWN_DUP2, printed, 1), (os.POSIX_SPAWN_DUP2, printed, 2)]
    started = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - started
    unit = 2**20 if sys.platform == "darwin" else 2**10
    cost = {
        "status": os.waitstatus_to_exitcode(status),
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / unit,
    }
    with open(result, "w") as file:  # noqa: PTH123 (pathlib would cost memory)
        json.dump(cost, file)


if __name__ == "__main__":
    main()
