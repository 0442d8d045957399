"""nginx.py WHERE CONNECTIONS NEWCOMERS: clients of a web server, by connections that are kept alive."""


class Visit(Connection):
    def get(self, number, how):
        self.send(b"GET /%d HTTP/1.1\r\nHost: any\r\nConnection: %s\r\n\r\n" % (number, how))
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            head += self.receive(1)
        status, *fields = bytes(head).split(b"\r\n")
        compare(status, b"HTTP/1.1 200 OK")
        # As the server of upstream.py makes it.
        page = b"%d " % number * (1 + number * 37 % 20_000)
        if b"Content-Length: %d" % len(page) not in fields:
            raise ValueError(f"another length than {len(page)}: {bytes(head)!r}")
        self.expect(page)


def client(talk):
    number, visit = talk.conversation(), Visit(talk.where)

    def converse():
        count = 0
        while not talk.is_over:
            count += 1
            visit.get(count, b"keep-alive")
            talk.did(number)

    return converse


def newcomer(talk):
    number = talk.conversation()

    def come():
        count = 0
        while not talk.is_over:
            count += 1
            visit = Visit(talk.where)
            visit.get(count, b"close")
            compare(visit.socket.recv(1), b"")
            visit.close()
            talk.did(number)

    return come


Talk().run(client, newcomer)
