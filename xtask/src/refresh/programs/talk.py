"""What all clients have in common; where.py precedes it, and their own code follows.

They are told where the server is, how many connections stay, and how many newcomers come and go all the while. They
talk over all of them at once, hold each answer against the one expected, byte for byte, and go on until their
standard input ends. Each line of their output is one of

    ready                         all connections are there
    talked OPERATIONS SLOWEST     so many so far, and so many where there were the fewest: none is forgotten
    error WHAT                    another answer than expected, or none
    over                          all have ended as they should
"""

import sys
import threading
import time

# How often they report, in seconds: whoever waits for more waits that long.
PACE = 0.01


class Talk:
    def __init__(self):
        self.where, *numbers = sys.argv[1:]
        self.connections, self.newcomers = map(int, numbers)
        self.counts = []
        self.is_over = False
        self.has_failed = False
        self.reported = 0.0
        self.lock = threading.Lock()

    def say(self, line):
        with self.lock:
            print(line, flush=True)

    def conversation(self):
        """One more that counts; its number."""
        self.counts.append(0)
        return len(self.counts) - 1

    def did(self, conversation):
        self.counts[conversation] += 1
        now = time.monotonic()
        if now - self.reported >= PACE:
            self.reported = now
            self.report()

    def report(self):
        self.say(f"talked {sum(self.counts)} {min(self.counts)}")

    def failed(self, what):
        self.has_failed = True
        self.say(f"error {what}")

    def begin(self):
        """All connections are there: from now on somebody may end it."""
        threading.Thread(target=self.wait_for_end, daemon=True).start()
        self.say("ready")

    def wait_for_end(self):
        sys.stdin.buffer.read()
        self.is_over = True

    def end(self):
        self.report()
        if not self.has_failed:
            self.say("over")

    def run(self, client, newcomer, *others):
        """Makes as many of each as there are to be; these and the others talk, each in a thread of its own."""
        conversations = [
            *(client(self) for _ in range(self.connections)),
            *(newcomer(self) for _ in range(self.newcomers)),
            *others,
        ]
        threads = [threading.Thread(target=self.guard, args=(each,)) for each in conversations]
        self.begin()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.end()

    def guard(self, conversation):
        try:
            conversation()
        except Exception as error:
            self.failed(f"{getattr(conversation, '__qualname__', conversation)}: {error!r}")


class Connection:
    """A connection in which each request waits for its answer."""

    def __init__(self, where):
        self.socket = connect(where)

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, length):
        received = bytearray()
        while len(received) < length:
            piece = self.socket.recv(length - len(received))
            if not piece:
                raise EOFError(f"the connection has ended, {len(received)} of {length} bytes came")
            received += piece
        return bytes(received)

    def expect(self, answer):
        compare(self.receive(len(answer)), answer)

    def ask(self, request, answer):
        self.send(request)
        self.expect(answer)

    def close(self):
        self.socket.close()


def compare(found, expected):
    if found != expected:
        raise ValueError(f"came {found[:80]!r}, expected {expected[:80]!r}")


def payload(number, limit):
    """Bytes of many lengths, which tell from which number they are."""
    return b"%d " % number * (1 + number * 37 % (limit // 8))


