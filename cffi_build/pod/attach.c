/* Who looks on: a SOCK_SEQPACKET pair each, a message being the stream's number (1 or 2) and what was written to it.
 *
 * A client that does not read is cut when its socket's buffer is full: the log and the container wait for nobody.
 */
#include "pod.h"

#define MOST 32768
#define BACKLOG (1 << 20)      /* bytes that a client may be behind, with the kernel's own of each message */

static int has_left(int fd)
{
	struct pollfd f = { fd, 0, 0 };
	return sys_poll(&f, 1, 0) == 1;
}

/* The client's end, or -errno. Those who have left are noticed here, or when something is written. */
long attach(struct ctr *c)
{
	int pair[2];
	const int most = BACKLOG;
	for (int i = 0; i < ATTACHED; i++)
		if (c->attached[i] >= 0 && has_left(c->attached[i]))
			shut(&c->attached[i]);
	for (int i = 0; i < ATTACHED; i++)
		if (c->attached[i] < 0) {
			long r = sc4(__NR_socketpair, AF_UNIX_, SOCK_SEQPACKET_ | SOCK_CLOEXEC_, 0, pair);
			if (r < 0)
				return r;
			sc5(__NR_setsockopt, pair[0], SOL_SOCKET_, 32 /* SO_SNDBUFFORCE */, &most, sizeof most);
			c->attached[i] = pair[0];
			return pair[1];
		}
	return -EUSERS;
}

void tee(struct ctr *c, u8 number, const char *data, usize n)
{
	for (int i = 0; i < ATTACHED; i++)
		for (usize at = 0, part; c->attached[i] >= 0 && at < n; at += part) {
			part = n - at < MOST ? n - at : MOST;
			if (tell(c->attached[i], &number, 1, data + at, part, NULL, 0) < 0)
				shut(&c->attached[i]);
		}
}

void cut_all(struct ctr *c)
{
	for (int i = 0; i < ATTACHED; i++)
		shut(&c->attached[i]);
}
