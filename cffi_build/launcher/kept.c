/* A plan that Python has kept: its key, its conditions, its holes, and how it is run (pyrun/runtime/cache.py). */
#include "kept.h"
#include "steps.h"

void add_bytes(struct key *k, const void *p, usize n)
{
	if (k->full || n > sizeof k->text - k->n) {
		k->full = 1;
		return;
	}
	for (usize i = 0; i < n; i++)
		k->text[k->n++] = ((const char *)p)[i];
}

void add(struct key *k, const char *word) { add_bytes(k, word, px_len(word) + 1); }

void add_number(struct key *k, u64 number)
{
	char text[PX_NUM];
	px_num(text, number);
	add(k, text);
}

int equal(const void *a, const void *b, usize n)
{
	for (usize i = 0; i < n; i++)
		if (((const u8 *)a)[i] != ((const u8 *)b)[i])
			return 0;
	return 1;
}

/* ---- the entry */

int lies_in(const struct bytes *b, u64 at, u64 n) { return at <= b->n && n <= b->n - at; }

static int is_whole(const struct bytes *b)
{
	const struct entry *e = (const void *)b->p;
	if (b->n < sizeof *e || !equal(e->magic, "PYPLAN1", 8) || !lies_in(b, e->key, e->key_len) || !lies_in(b, e->plan, e->plan_len))
		return 0;
	if (!lies_in(b, e->conditions, (u64)e->n_conditions * sizeof(struct condition)) || !lies_in(b, e->holes, (u64)e->n_holes * sizeof(struct hole)))
		return 0;
	const struct bytes plan = { b->p + e->plan, e->plan_len };
	if (!lies_in(&plan, e->config, e->config_len) || !lies_in(&plan, e->record, e->record_len) || e->plan % 8)
		return 0;
	const struct condition *c = (const void *)(b->p + e->conditions);
	for (u32 i = 0; i < e->n_conditions; i++)
		if (!lies_in(b, c[i].path, 1) || (c[i].len != MISSING && !lies_in(b, c[i].data, c[i].len)))
			return 0;
	return b->p[b->n - 1] == 0;
}

int read_entry(int dir, const char *path, const struct key *k, struct bytes *b)
{
	if (k->full || read_file(dir, path, MOST, OURS, b) < 0)
		return 0;
	const struct entry *e = (const void *)b->p;
	if (is_whole(b) && e->key_len == k->n && equal(b->p + e->key, k->text, k->n))
		return 1;
	sys_munmap(b->p, b->n + 8);
	return 0;
}

/* ---- the conditions */

static char small[65536];

static int has_content(const char *path, const u8 *data, u32 len)
{
	long n = read_small(path, small, sizeof small);
	if (len == MISSING)
		return n <= 0;
	return n == (long)len && equal(small, data, len);
}

static int has_line(const char *path, const u8 *data, u32 len)
{
	long n = read_small(path, small, sizeof small);
	for (long at = 0; at + (long)len <= n;) {
		if (equal(small + at, data, len) && (at + (long)len == n || small[at + len] == '\n'))
			return 1;
		while (at < n && small[at++] != '\n')
			;
	}
	return 0;
}

static u64 device(u32 major, u32 minor) /* as makedev(3) */
{
	return (u64)(minor & 0xff) | (u64)(major & 0xfff) << 8 | (u64)(minor & ~0xffu) << 12 | (u64)(major & ~0xfffu) << 32;
}

static int is_same(const char *path, const u8 *data, u32 len, int place)
{
	struct statx st;
	if (sys_statx(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_MNT_ID, &st) < 0)
		return 0;
	const u64 dev = device(st.stx_dev_major, st.stx_dev_minor);
	const u64 here[] = { dev, st.stx_ino, st.stx_mnt_id };
	const u64 version[] = { dev, st.stx_ino, st.stx_size, (u64)st.stx_mtime.tv_sec * 1000000000ull + st.stx_mtime.tv_nsec };
	return place ? len == sizeof here && equal(here, data, len) : len == sizeof version && equal(version, data, len);
}

static int holds(const u8 *base, const struct condition *c)
{
	const char *path = (const char *)base + c->path;
	const u8 *data = base + c->data;
	switch (c->kind) {
	case CONTENT: return has_content(path, data, c->len);
	case LINE: return c->len != MISSING && has_line(path, data, c->len);
	case SAME_PLACE: return is_same(path, data, c->len, 1);
	case SAME_FILE: return is_same(path, data, c->len, 0);
	default: return 0;
	}
}

int all_hold(const struct bytes *b)
{
	const struct entry *e = (const void *)b->p;
	const struct condition *c = (const void *)(b->p + e->conditions);
	for (u32 i = 0; i < e->n_conditions; i++)
		if (!holds(b->p, c + i))
			return 0;
	return 1;
}

/* ---- the holes */

int fill_holes(const struct bytes *b, const struct bytes values[HOLE_KINDS])
{
	const struct entry *e = (const void *)b->p;
	const struct hole *h = (const void *)(b->p + e->holes);
	const struct bytes plan = { b->p + e->plan, e->plan_len };
	for (u32 i = 0; i < e->n_holes; i++) {
		if (h[i].kind >= HOLE_KINDS || !values[h[i].kind].p || !lies_in(&plan, h[i].at, values[h[i].kind].n))
			return 0;
		for (usize k = 0; k < values[h[i].kind].n; k++)
			plan.p[h[i].at + k] = values[h[i].kind].p[k];
	}
	return 1;
}

/* ---- running it */

static struct px_result result;

#define BIT(n) (1ull << ((n) - 1))

/* ^C must not end us in the middle (hold_interrupts() of pyrun/runtime/create.py), nor Python, which tells what failed and runs the
 * poststop hooks. */
void run_whole(px_run_t *run, enum failing how)
{
	u64 held;
	sys_sigmask(NULL, &held);
	held |= BIT(2);
	sys_sigmask(&held, NULL);
	if (!px_run(run, &result))
		sys_exit(0);
	to_python(how == TOLD ? &result : NULL);
}

/* All children that have ended, those that the container left behind among them. The status of pid, or -1: it still runs. */
static int reap(int pid)
{
	int status, found = -1;
	long r;
	while ((r = sys_wait4(-1, &status, 1 /* WNOHANG */)) > 0)
		if (r == pid)
			found = status;
	return found;
}

/* Hands signals on until pid has ended; its exit code as a shell has it (pyrun/runtime/foreground.py). */
static int wait_for(int pid, int pidfd, const u64 *caught)
{
	int status;
	while ((status = reap(pid)) < 0) {
		long number = sc4(__NR_rt_sigtimedwait, caught, 0, 0, 8);
		if (number > 0 && number != PX_SIGCHLD)
			sys_pidfd_send_signal(pidfd, (int)number);
	}
	return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

/* Not KILL and STOP, which nobody can catch; not what a fault of our own raises; 32 and 33 are a C library's. */
#define CAUGHT (~(BIT(4) | BIT(7) | BIT(8) | BIT(9) | BIT(11) | BIT(19) | BIT(32) | BIT(33)))

int run_foreground(px_run_t *run, enum failing how, int *pid)
{
	const struct px_sigaction plain = { 0 };
	const u64 caught = CAUGHT;
	u64 before, blocked;
	/* From before the process is made, so that none is lost. A SIGCHLD that our caller ignored would take the exit status away. */
	sys_sigmask(NULL, &before);
	blocked = before | caught;
	sys_sigmask(&blocked, NULL);
	sc4(__NR_rt_sigaction, PX_SIGCHLD, &plain, 0, 8);
	if (px_run(run, &result)) {
		sys_sigmask(&before, NULL);
		to_python(how == TOLD ? &result : NULL);
	}
	*pid = result.pid;
	return wait_for(result.pid, px_slot(run, 0xffffffffu), &caught);
}
