/*
 * A victim that makes system calls by the 32-bit entry, one after the other as it is told. It is told
 * on standard input in the shape below, and answers with the result and with what is in its memory
 * then. It needs no library, so that none of 32 bits has to be installed.
 */
enum { EXIT = 1, READ = 3, WRITE = 4 };

static struct {
	unsigned number;
	unsigned arguments[5];
	/* For what arguments point to. */
	unsigned char memory[256];
} call;

static int enter(unsigned number, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e)
{
	int result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "memory");
	return result;
}

void _start(void)
{
	const unsigned *a = call.arguments;
	unsigned memory = (unsigned)call.memory;
	int result;

	/* First of all, where the memory is. */
	enter(WRITE, 1, (unsigned)&memory, sizeof(memory), 0, 0);
	while (enter(READ, 0, (unsigned)&call, sizeof(call), 0, 0) == sizeof(call)) {
		result = enter(call.number, a[0], a[1], a[2], a[3], a[4]);
		enter(WRITE, 1, (unsigned)&result, sizeof(result), 0, 0);
		enter(WRITE, 1, memory, sizeof(call.memory), 0, 0);
	}
	enter(EXIT, 0, 0, 0, 0, 0);
}
