/* Messages with descriptors, on non-blocking SOCK_SEQPACKET sockets. */
#include "pod.h"

#define MSG_DONTWAIT 0x40
#define MSG_NOSIGNAL 0x4000
#define MSG_CTRUNC 8
#define MSG_CMSG_CLOEXEC 0x40000000

struct rights { usize len; i32 level, type; i32 fd[POD_FDS]; };

/* Bytes of a message, at most n, and the descriptors that came with it, which are the caller's; 0: the end; -errno. One with more descriptors
 * than any of ours is refused whole, and none of them stays open. */
long receive(int fd, void *buf, usize n, struct fds *got)
{
	struct rights c = { 0 };
	struct px_iovec iov = { buf, n };
	struct px_msghdr m = { .iov = &iov, .iovlen = 1, .control = &c, .controllen = sizeof c };
	long r;
	got->n = 0;
	do
		r = sc3(__NR_recvmsg, fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (r == -EINTR);
	if (r < 0)
		return r;
	if (m.controllen >= sizeof(usize) + 8 && c.level == SOL_SOCKET_ && c.type == SCM_RIGHTS_)
		for (usize at = sizeof(usize) + 8; at + 4 <= c.len && got->n < POD_FDS; at += 4)
			{
			got->fd[got->n] = c.fd[got->n];
			got->n++;
		}
	if (m.flags & MSG_CTRUNC) {
		for (u32 i = 0; i < got->n; i++)
			sys_close(got->fd[i]);
		got->n = 0;
		return -EMSGSIZE;
	}
	return r;
}

/* 0, or -errno: what a client does not take at once it does not get. */
long tell(int fd, const void *head, usize head_len, const void *body, usize body_len, const int *fds, u32 n_fds)
{
	struct rights c = { .len = sizeof(usize) + 8 + 4 * n_fds, .level = SOL_SOCKET_, .type = SCM_RIGHTS_ };
	struct px_iovec iov[2] = { { (void *)(usize)head, head_len }, { (void *)(usize)body, body_len } };
	struct px_msghdr m = { .iov = iov, .iovlen = body_len ? 2 : 1 };
	long r;
	for (u32 i = 0; i < n_fds; i++)
		c.fd[i] = fds[i];
	if (n_fds) {
		m.control = &c;
		m.controllen = (c.len + 7) & ~(usize)7;
	}
	do
		r = sc3(__NR_sendmsg, fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (r == -EINTR);
	return r < 0 ? r : 0;
}

long reply(int fd, enum pod_kind kind, i32 err, i64 value, i32 pid)
{
	const struct pod_reply r = { .magic = POD_MAGIC, .kind = kind, .err = err < 0 ? -err : err, .value = value, .pid = pid };
	return tell(fd, &r, sizeof r, NULL, 0, NULL, 0);
}
