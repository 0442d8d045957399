"""postgres.py WHERE CONNECTIONS NEWCOMERS: clients of PostgreSQL, each of which has a backend of its own there."""

import struct


class Session(Connection):
    def __init__(self, where):
        super().__init__(where)
        parameters = b"user\0postgres\0database\0postgres\0\0"
        self.send(struct.pack("!II", 8 + len(parameters), 3 << 16) + parameters)
        kinds = [kind for kind, _ in self.messages()]
        # It is let in, told about settings, and given a key for cancelling.
        compare(kinds, [b"R", *[b"S"] * kinds.count(b"S"), b"K", b"Z"])

    def messages(self):
        """Until it is ready for the next query."""
        messages = []
        while not messages or messages[-1][0] != b"Z":
            kind, length = struct.unpack("!cI", self.receive(5))
            messages.append((kind, self.receive(length - 4)))
        return messages

    def query(self, text, *values):
        """The tags and rows of the answer are to be these: one row, each value as text."""
        self.send(struct.pack("!cI", b"Q", 5 + len(text)) + text + b"\0")
        row = struct.pack("!H", len(values))
        row += b"".join(struct.pack("!I", len(value)) + value for value in values)
        messages = self.messages()
        compare([kind for kind, _ in messages], [b"T", b"D", b"C", b"Z"])
        compare(messages[1][1], row)

    def run(self, text):
        self.send(struct.pack("!cI", b"Q", 5 + len(text)) + text + b"\0")
        compare([kind for kind, _ in self.messages()], [b"C", b"Z"])


def client(talk):
    number, session = talk.conversation(), Session(talk.where)
    session.run(b"CREATE TEMPORARY TABLE counter AS SELECT 0 AS count")

    def converse():
        count = 0
        while not talk.is_over:
            count += 1
            session.query(b"UPDATE counter SET count = count + 1 RETURNING count", b"%d" % count)
            repeat = count * 37 % 5000
            query = b"SELECT %d, repeat('%d ', %d)" % (count, count, repeat)
            session.query(query, b"%d" % count, b"%d " % count * repeat)
            talk.did(number)

    return converse


def newcomer(talk):
    number = talk.conversation()

    def come():
        count = 0
        while not talk.is_over:
            count += 1
            session = Session(talk.where)
            session.query(b"SELECT %d" % count, b"%d" % count)
            session.send(struct.pack("!cI", b"X", 4))
            session.close()
            talk.did(number)

    return come


Talk().run(client, newcomer)
