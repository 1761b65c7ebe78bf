/* What the loop and the steps share: the context's descriptors, words and messages, and arrays of strings. It calls no step. */
#include "steps.h"

usize px_len(const char *s)
{
	usize n = 0;
	while (s[n])
		n++;
	return n;
}

void px_say(struct px_ctx *x, const char *s, usize n)
{
	while (n-- && x->text_len < PX_TEXT)
		x->text[x->text_len++] = *s++;
}

/* A slot owns its descriptor: a second result closes the first. Returns 0, or the -errno that came in. */
long px_out(struct px_ctx *x, u16 slot, long fd)
{
	if (fd < 0)
		return fd;
	if (slot == PX_NONE)
		return sys_close((int)fd);
	if (x->slots[slot] >= 0)
		sys_close(x->slots[slot]);
	x->slots[slot] = (i32)fd;
	return 0;
}

int px_linked(struct px_ctx *x, u16 slot)
{
	struct statx st;
	return slot == PX_NONE || sys_statx(px_fd(x, slot), "", AT_EMPTY_PATH, STATX_NLINK, &st) < 0 || st.stx_nlink > 0;
}

long px_wait(struct px_ctx *x, struct pollfd *f, u32 n, u64 ms)
{
	struct pollfd all[3];
	ms = ms >> 31 ? 0 : ms; /* more than poll(2) takes, 24 days: for ever */
	const long deadline = ms ? sys_now() + (long)ms * 1000000 : 0;
	for (u32 i = 0; i < n; i++)
		all[i] = f[i];
	all[n] = (struct pollfd){ x->cancel, POLLIN, 0 };
	for (;;) {
		const long left = ms ? (deadline - sys_now() + 999999) / 1000000 : -1;
		const long r = sys_poll(all, n + 1, ms && left < 0 ? 0 : left);
		if (r == -EINTR)
			continue;
		if (r <= 0)
			return r ? r : -ETIMEDOUT;
		if (all[n].revents && r == 1)
			return -ECANCELED;
		for (u32 i = 0; i < n; i++)
			f[i].revents = all[i].revents;
		return r;
	}
}

long px_reap(i32 pid, int pidfd, i32 *status)
{
	const long deadline = sys_now() + 10 * 1000000000L;
	for (;;) {
		struct pollfd f = { pidfd, POLLIN, 0 };
		const long r = sys_wait4(pid, status, 0x40000000 /* __WALL */ | 1 /* WNOHANG */), left = (deadline - sys_now()) / 1000000;
		if (r > 0 || (r < 0 && r != -EINTR))
			return r < 0 ? r : 0;
		if (left <= 0)
			return -ETIMEDOUT;
		sys_poll(&f, 1, pidfd < 0 ? 1 : left);
	}
}

long px_send_msg(struct px_ctx *x, u32 kind, i32 value, u32 substep)
{
	struct px_msg *m = &x->msg;
	m->kind = kind;
	m->lane = x->lane;
	m->step = x->step;
	m->substep = substep;
	m->err = x->err;
	m->value = value;
	m->text_len = kind == MSG_ERROR ? x->text_len : 0;
	for (u32 i = 0; i < m->text_len; i++)
		m->text[i] = x->text[i];
	usize n = sizeof *m - PX_TEXT + m->text_len;
	long r;
	do
		r = sys_write(x->sync, m, n);
	while (r == -EINTR);
	return r == (long)n ? 0 : r < 0 ? r : -EIO;
}

long px_write_all(int fd, const char *p, usize n)
{
	while (n) {
		long r = sys_write(fd, p, n);
		if (r == -EINTR)
			continue;
		if (r <= 0)
			return r ? r : -EIO;
		p += r;
		n -= (usize)r;
	}
	return 0;
}

/* An argv from `count` strings that each end with a NUL, with room for `more`; NULL where the blob does not hold that many. */
char **px_vector(const char *p, u32 len, u64 count, u32 more)
{
	u64 have = 1;
	for (u32 i = 0; i < len; i++)
		have += !p[i];
	if (count > have)
		return NULL;
	long mem = sys_mmap(NULL, (usize)(count + more + 1) * sizeof(char *), 3, 0x22, -1);
	if (mem < 0 && mem > -4096)
		return NULL;
	char **v = (char **)mem;
	for (u64 i = 0; i < count; i++) {
		v[i] = (char *)p;
		p += px_len(p) + 1;
	}
	return v;
}

void px_vector_free(char **v, u64 count, u32 more)
{
	if (v)
		sys_munmap(v, (usize)(count + more + 1) * sizeof(char *));
}
