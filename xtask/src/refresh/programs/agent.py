"""agent.py PATH CONNECTIONS NEWCOMERS: clients of an SSH agent, which has a key from them.

As many newcomers again are programs, ssh-add, that are run one after the other.
"""

import os
import struct
import subprocess
import tempfile

LIST, LISTED, SIGN, SIGNED = 11, 12, 13, 14
# So many pieces of data are signed. A signature by ed25519 is always the same.
PIECES = 20


def string(data):
    return struct.pack("!I", len(data)) + data


class Agent(Connection):
    def tell(self, kind, content=b""):
        self.send(string(bytes([kind]) + content))
        (length,) = struct.unpack("!I", self.receive(4))
        return self.receive(length)

    def keys(self):
        return self.tell(LIST)

    def sign(self, key, data):
        return self.tell(SIGN, string(key) + string(data) + b"\0" * 4)


class Expected:
    """What the agent answers before anything has happened to it."""

    def __init__(self, path):
        self.environment = os.environ | {"SSH_AUTH_SOCK": path}
        with tempfile.TemporaryDirectory() as folder:
            key = folder + "/key"
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], **quiet)
            subprocess.run(["ssh-add", key], env=self.environment, **quiet)
        agent = Agent(path)
        self.keys = agent.keys()
        kind, count, length = struct.unpack_from("!BII", self.keys)
        compare((kind, count), (LISTED, 1))
        self.key = self.keys[9 : 9 + length]
        self.pieces = [payload(number, 4096) for number in range(PIECES)]
        self.signatures = [agent.sign(self.key, piece) for piece in self.pieces]
        compare({signature[0] for signature in self.signatures}, {SIGNED})
        self.listed = self.list()
        agent.close()

    def list(self):
        lister = subprocess.run(["ssh-add", "-l"], env=self.environment, capture_output=True)
        return lister.returncode, lister.stdout, lister.stderr


def client(talk, expected):
    number, agent = talk.conversation(), Agent(talk.where)

    def converse():
        count = 0
        while not talk.is_over:
            which = count % PIECES
            count += 1
            compare(agent.keys(), expected.keys)
            compare(agent.sign(expected.key, expected.pieces[which]), expected.signatures[which])
            talk.did(number)

    return converse


def newcomer(talk, expected):
    number = talk.conversation()

    def come():
        while not talk.is_over:
            agent = Agent(talk.where)
            compare(agent.keys(), expected.keys)
            agent.close()
            talk.did(number)

    return come


def lister(talk, expected):
    number = talk.conversation()

    def look():
        while not talk.is_over:
            compare(expected.list(), expected.listed)
            talk.did(number)

    return look


talk = Talk()
expected = Expected(talk.where)
talk.run(
    lambda talk: client(talk, expected),
    lambda talk: newcomer(talk, expected),
    *(lister(talk, expected) for _ in range(talk.newcomers)),
)
