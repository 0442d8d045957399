/*
 * A victim that does through io_uring what it is told, line by line. Told in C, since the ring is
 * memory that is shared with the kernel, and the workspace has no unsafe code outside its fences.
 *
 *     uring plain | async | poll
 *
 * async: a worker of the kernel does it (IOSQE_ASYNC); poll: the thread of the ring (SQPOLL).
 * An order is `[later | call] WORD FD [NUMBER or NAME]`. What is to come `later` is waited for by
 * `wait`; a `call` is made as a system call, past the ring.
 * Names are sun_path bytes in hexadecimal digits. The answer is `ok RESULT` or `err ERRNO`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* Since 6.11: not in every linux/io_uring.h. */
enum { OP_BIND = 56, OP_LISTEN = 57 };

static int ring;
static struct io_uring_params setup;
static char *queues;
static struct io_uring_sqe *entries;
static unsigned char entry_flags;

static unsigned *at(unsigned offset)
{
	return (unsigned *)(queues + offset);
}

static void enter(unsigned submitted, unsigned completed, unsigned flags)
{
	while (syscall(SYS_io_uring_enter, ring, submitted, completed, flags, NULL, 0) < 0)
		if (errno != EINTR)
			exit(1);
}

static int set_up(const char *mode)
{
	const int protection = PROT_READ | PROT_WRITE, kind = MAP_SHARED | MAP_POPULATE;

	if (!strcmp(mode, "async"))
		entry_flags = IOSQE_ASYNC;
	if (!strcmp(mode, "poll"))
		setup.flags = IORING_SETUP_SQPOLL;
	ring = syscall(SYS_io_uring_setup, 8, &setup);
	if (ring < 0)
		return errno;
	/* Both queues are in one mapping since 5.4; the completions lie behind. */
	queues = mmap(NULL, setup.cq_off.cqes + setup.cq_entries * sizeof(struct io_uring_cqe),
		      protection, kind, ring, IORING_OFF_SQ_RING);
	entries = mmap(NULL, setup.sq_entries * sizeof(*entries), protection, kind, ring,
		       IORING_OFF_SQES);
	return queues == MAP_FAILED || entries == MAP_FAILED ? errno : 0;
}

static void submit(const struct io_uring_sqe *order)
{
	unsigned *tail = at(setup.sq_off.tail);
	unsigned slot = *tail & *at(setup.sq_off.ring_mask);

	entries[slot] = *order;
	entries[slot].flags = entry_flags;
	at(setup.sq_off.array)[slot] = slot;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_SEQ_CST);
	if (!(setup.flags & IORING_SETUP_SQPOLL))
		enter(1, 0, 0);
	else if (__atomic_load_n(at(setup.sq_off.flags), __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
		enter(0, 0, IORING_ENTER_SQ_WAKEUP);
}

static int completed(void)
{
	unsigned *head = at(setup.cq_off.head);
	struct io_uring_cqe *done = (struct io_uring_cqe *)at(setup.cq_off.cqes);
	int result;

	while (*head == __atomic_load_n(at(setup.cq_off.tail), __ATOMIC_ACQUIRE))
		enter(0, 1, IORING_ENTER_GETEVENTS);
	result = done[*head & *at(setup.cq_off.ring_mask)].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

static int answer(int result)
{
	return result < 0 ? printf("err %d\n", -result) : printf("ok %d\n", result);
}

/* A message of one byte, with room for one descriptor. */
static char byte = 'x';
static union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control;
static struct iovec text = { &byte, 1 };
static struct msghdr message = { .msg_iov = &text, .msg_iovlen = 1 };

static void prepare_message(int passed)
{
	message.msg_control = &control;
	message.msg_controllen = sizeof(control);
	control.head = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.head), &passed, sizeof(int));
}

/* What an order means; 0 if there is no such order. */
static int translate(struct io_uring_sqe *order, const char *word, int fd, const char *rest)
{
	static struct sockaddr_un name;
	int number = atoi(rest);

	*order = (struct io_uring_sqe){ .fd = fd };
	if (!strcmp(word, "bind") || !strcmp(word, "connect")) {
		int length = 0;

		name.sun_family = AF_UNIX;
		while (sscanf(rest + 2 * length, "%2hhx", (unsigned char *)name.sun_path + length) == 1)
			length++;
		order->opcode = *word == 'b' ? OP_BIND : IORING_OP_CONNECT;
		order->addr = (unsigned long)&name;
		order->off = offsetof(struct sockaddr_un, sun_path) + length;
	} else if (!strcmp(word, "socket")) {
		order->opcode = IORING_OP_SOCKET;
		order->fd = AF_UNIX;
		order->off = fd;
	} else if (!strcmp(word, "listen")) {
		order->opcode = OP_LISTEN;
		order->len = number;
	} else if (!strcmp(word, "accept")) {
		order->opcode = IORING_OP_ACCEPT;
	} else if (!strcmp(word, "shutdown")) {
		order->opcode = IORING_OP_SHUTDOWN;
		order->len = number;
	} else if (!strcmp(word, "close")) {
		order->opcode = IORING_OP_CLOSE;
	} else if (!strcmp(word, "pass") || !strcmp(word, "take")) {
		prepare_message(number);
		order->opcode = *word == 'p' ? IORING_OP_SENDMSG : IORING_OP_RECVMSG;
		order->addr = (unsigned long)&message;
		order->len = 1;
	} else {
		return 0;
	}
	return 1;
}

static int call(const struct io_uring_sqe *order)
{
	struct sockaddr *name = (struct sockaddr *)(unsigned long)order->addr;
	int result = -1;

	errno = EINVAL;
	if (order->opcode == OP_BIND)
		result = bind(order->fd, name, order->off);
	else if (order->opcode == OP_LISTEN)
		result = listen(order->fd, order->len);
	else if (order->opcode == IORING_OP_CONNECT)
		result = connect(order->fd, name, order->off);
	else if (order->opcode == IORING_OP_SOCKET)
		result = socket(order->fd, order->off, 0);
	return result < 0 ? -errno : result;
}

int main(int count, char **arguments)
{
	char line[512], word[16], rest[300];
	int failed, fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	failed = count == 2 ? set_up(arguments[1]) : EINVAL;
	answer(-failed);
	while (!failed && fgets(line, sizeof(line), stdin)) {
		int later = !strncmp(line, "later ", 6), direct = !strncmp(line, "call ", 5);
		struct io_uring_sqe order;

		*rest = 0;
		fd = -1;
		if (sscanf(line + (later ? 6 : direct ? 5 : 0), "%15s %d %299s", word, &fd, rest) < 1)
			return 1;
		if (!strcmp(word, "wait")) {
			answer(completed());
		} else if (!translate(&order, word, fd, rest)) {
			return 1;
		} else if (direct) {
			answer(call(&order));
		} else {
			submit(&order);
			answer(later ? 0 : completed());
		}
	}
	return failed;
}
