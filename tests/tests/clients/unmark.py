"""Tries to take away what marks its own cgroup as captured: `unmark.py FOLDER`, of the cgroup as the host sees it."""
import os
import subprocess
import sys

MARK = "security.interceptor"
folder = sys.argv[1]
folders = [folder]
# Where it may mount, it sees its own cgroup as the root.
if subprocess.run(["mount", "-t", "cgroup2", "none", "/mnt"], capture_output=True).returncode == 0:
    folders.append("/mnt")

for path in folders:
    assert os.getxattr(path, MARK), "everybody can read it"
    for name, attempt in {
        "remove": lambda: os.removexattr(path, MARK),
        "replace": lambda: os.setxattr(path, MARK, b"another", os.XATTR_REPLACE),
        "rename": lambda: os.rename(path, folder + "-renamed"),
        "remove the cgroup": lambda: os.rmdir(path),
    }.items():
        try:
            attempt()
            print(f"could {name} at {path}")
            sys.exit(1)
        except OSError:
            pass
print(f"nothing was possible at {len(folders)} places")
