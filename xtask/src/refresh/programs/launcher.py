"""Starts servers and a client of theirs as its children, so that both ends of all connections are in one tree.

Which ones its argument says, in JSON. It ends when it is told to by a signal, and holds no sockets.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

# How often it looks whether a server listens by now, in seconds.
GLANCE = 0.01


def listens(where):
    family, place = address(where)
    with socket.socket(family) as probe:
        return probe.connect_ex(place) == 0


plan = json.loads(sys.argv[1])
children = []
for server in plan["servers"]:
    with open(server["log"], "ab") as log:
        child = subprocess.Popen(server["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    children.append(child)
    while not listens(server["where"]):
        if child.poll() is not None:
            sys.exit(f"{server['command']} has ended")
        time.sleep(GLANCE)
children.append(subprocess.Popen(plan["client"]))
# Whoever talks with the client shall learn that it has ended.
os.close(0)
os.close(1)
while True:
    signal.pause()
