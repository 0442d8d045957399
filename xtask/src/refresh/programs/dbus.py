"""dbus.py PATH CONNECTIONS NEWCOMERS: clients of a message bus, and one who answers them.

They speak its protocol themselves, so that what comes can be held against what was sent.
"""

import os
import struct

CALL, RETURN, SIGNAL = 1, 2, 4
PATH, INTERFACE, MEMBER, REPLY_TO, DESTINATION, SENDER, SIGNATURE = 1, 2, 3, 5, 6, 7, 8
BUS = b"org.freedesktop.DBus"
NAME = b"org.example.Echo"
KINDS = {PATH: b"o", REPLY_TO: b"u", SIGNATURE: b"g"}


def string(text):
    return struct.pack("<I", len(text)) + text + b"\0"


def padding(length, to):
    return b"\0" * (-length % to)


def field(code, value):
    kind = KINDS.get(code, b"s")
    values = {b"u": lambda: struct.pack("<I", value), b"g": lambda: bytes([len(value)]) + value + b"\0"}
    return bytes([code, 1]) + kind + b"\0" + values.get(kind, lambda: string(value))()


def message(kind, serial, fields, body):
    array = b""
    for code, value in fields.items():
        array += padding(len(array), 8) + field(code, value)
    head = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), serial, len(array)) + array
    return head + padding(len(head), 8) + body


def fields_of(array):
    fields, at = {}, 0
    while at < len(array):
        at += -at % 8
        code, kind = array[at], array[at + 2 : at + 3]
        at += 4
        if kind == b"u":
            (value,) = struct.unpack_from("<I", array, at)
            at += 4
        else:
            size = 1 if kind == b"g" else 4
            length = int.from_bytes(array[at : at + size], "little")
            value = array[at + size : at + size + length]
            at += size + length + 1
        fields[code] = value
    return fields


class Bus(Connection):
    def __init__(self, path):
        super().__init__(path)
        self.serial = 0
        user = b"%d" % os.geteuid()
        self.send(b"\0AUTH EXTERNAL %s\r\n" % user.hex().encode())
        said = bytearray()
        while not said.endswith(b"\r\n"):
            said += self.receive(1)
        compare(bytes(said[:3]), b"OK ")
        self.send(b"BEGIN\r\n")
        self.ask_bus(b"Hello")

    def tell(self, kind, fields, body=b""):
        self.serial += 1
        self.send(message(kind, self.serial, fields, body))

    def hear(self):
        """The next one that is no signal."""
        while True:
            head = self.receive(16)
            _, kind, _, _, length, serial, array = struct.unpack("<cBBBIII", head)
            fields = fields_of(self.receive(array))
            self.receive(-array % 8)
            body = self.receive(length)
            if kind != SIGNAL:
                return kind, serial, fields, body

    def call(self, fields, body=b""):
        self.tell(CALL, fields, body)
        kind, _, answer, body = self.hear()
        if kind != RETURN:
            raise ValueError(f"no answer but {kind}: {body!r}")
        compare(answer[REPLY_TO], self.serial)
        return body

    def ask_bus(self, member, signature=b"", body=b""):
        to = {PATH: b"/org/freedesktop/DBus", INTERFACE: BUS, MEMBER: member, DESTINATION: BUS}
        return self.call(to | ({SIGNATURE: signature} if signature else {}), body)

    def ping(self):
        to = {PATH: b"/", INTERFACE: b"org.freedesktop.DBus.Peer", MEMBER: b"Ping", DESTINATION: BUS}
        compare(self.call(to), b"")


def echo(talk):
    bus = Bus(talk.where)
    # The answer: it is the owner.
    compare(bus.ask_bus(b"RequestName", b"su", string(NAME) + padding(len(string(NAME)), 4) + b"\0" * 4), b"\1\0\0\0")

    def answer():
        while True:
            _, serial, fields, body = bus.hear()
            bus.tell(RETURN, {REPLY_TO: serial, DESTINATION: fields[SENDER], SIGNATURE: b"s"}, body)

    return answer


def client(talk):
    number, bus = talk.conversation(), Bus(talk.where)
    to = {PATH: b"/echo", INTERFACE: NAME, MEMBER: b"Echo", DESTINATION: NAME, SIGNATURE: b"s"}

    def converse():
        count = 0
        while not talk.is_over:
            count += 1
            body = string(payload(count, 4096))
            compare(bus.call(to, body), body)
            bus.ping()
            talk.did(number)

    return converse


def newcomer(talk):
    number = talk.conversation()

    def come():
        while not talk.is_over:
            bus = Bus(talk.where)
            bus.ping()
            bus.close()
            talk.did(number)

    return come


talk = Talk()
threading.Thread(target=talk.guard, args=(echo(talk),), daemon=True).start()
talk.run(client, newcomer)
