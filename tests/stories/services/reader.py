"""Reads a connection to its end, and appends what comes to a file."""

import os
import shutil
import sys

descriptor, path = int(sys.argv[1]), sys.argv[2]
# Who had it before did not want to wait.
os.set_blocking(descriptor, True)
with open(descriptor, "rb") as connection, open(path, "ab") as file:
    shutil.copyfileobj(connection, file)
