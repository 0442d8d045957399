"""redis.py WHERE CONNECTIONS NEWCOMERS: clients of redis, and a publisher with a subscriber."""

# So many messages may be on their way to the subscriber: redis gives up on one who falls behind.
WINDOW = 100


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def bulk(word):
    return b"$%d\r\n%s\r\n" % (len(word), word)


def message(content):
    return b"*3\r\n" + bulk(b"message") + bulk(b"news") + bulk(content)


def client(talk):
    number, connection = talk.conversation(), Connection(talk.where)
    page, counter = b"page-%d" % number, b"counter-%d" % number

    def converse():
        count = 0
        while not talk.is_over:
            count += 1
            content = payload(count, 4096)
            connection.ask(command(b"SET", page, content), b"+OK\r\n")
            connection.ask(command(b"GET", page), bulk(content))
            connection.ask(command(b"INCR", counter), b":%d\r\n" % count)
            talk.did(number)

    return converse


def publisher_and_subscriber(talk):
    sends, hears = talk.conversation(), talk.conversation()
    publisher, subscriber = Connection(talk.where), Connection(talk.where)
    subscriber.ask(command(b"SUBSCRIBE", b"news"), b"*3\r\n" + bulk(b"subscribe") + bulk(b"news") + b":1\r\n")
    window = threading.Semaphore(WINDOW)
    told = []

    def publish():
        count = 0
        while not talk.is_over:
            window.acquire()
            count += 1
            publisher.ask(command(b"PUBLISH", b"news", b"%d" % count), b":1\r\n")
            talk.did(sends)
        told.append(count)
        publisher.ask(command(b"PUBLISH", b"news", b"%d" % (count + 1)), b":1\r\n")

    def subscribe():
        count = 0
        # All that were published, one after the other, and then the one that is not counted.
        while not told or count <= told[0]:
            count += 1
            subscriber.expect(message(b"%d" % count))
            window.release()
            talk.did(hears)

    return publish, subscribe


def newcomer(talk):
    number = talk.conversation()

    def come():
        while not talk.is_over:
            connection = Connection(talk.where)
            connection.ask(command(b"PING"), b"+PONG\r\n")
            connection.close()
            talk.did(number)

    return come


talk = Talk()
talk.run(client, newcomer, *publisher_and_subscriber(talk))
