/* create and run from a plan that Python has kept (pyrun/runtime/cache.py): compare, fill the holes, run it. */
#include "launcher.h"
#include "steps.h"

#define DIRECTORY "/.plans~"
#define MOST (1u << 20)
#define MISSING 0xffffffffu
enum condition_kind { CONTENT, LINE, SAME_PLACE, SAME_FILE };
enum hole_kind { HOLE_ID, HOLE_CREATED, HOLE_CREATOR };

struct entry {
	char magic[8];
	u32 key, key_len, conditions, n_conditions, holes, n_holes, plan, plan_len, config, config_len, record, record_len;
};
struct condition { u32 kind, path, data, len; };
struct hole { u32 at, kind; };

struct key { char text[9000]; usize n; int full; };

static void add(struct key *k, const char *word)
{
	usize n = px_len(word) + 1;
	if (k->full || n > sizeof k->text - k->n) {
		k->full = 1;
		return;
	}
	for (usize i = 0; i < n; i++)
		k->text[k->n++] = word[i];
}

static int equal(const void *a, const void *b, usize n)
{
	for (usize i = 0; i < n; i++)
		if (((const u8 *)a)[i] != ((const u8 *)b)[i])
			return 0;
	return 1;
}

/* ---- the entry */

static int lies_in(const struct bytes *b, u64 at, u64 n) { return at <= b->n && n <= b->n - at; }

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

/* The entry's file, out of a directory that nobody but us may have written to. */
static int open_entry(const struct call *c, const struct key *k, struct bytes *b)
{
	char dir[4200], name[17];
	struct statx st;
	u64 hash = 0xcbf29ce484222325ull;
	if (k->full || !join(join(dir, dir + sizeof dir, c->root), dir + sizeof dir, DIRECTORY))
		return 0;
	for (usize i = 0; i < k->n; i++)
		hash = (hash ^ (u8)k->text[i]) * 0x100000001b3ull;
	for (int i = 0; i < 16; i++)
		name[i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15];
	name[16] = 0;
	long fd = sys_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	int ours = sys_statx((int)fd, "", AT_EMPTY_PATH, STATX_MODE | STATX_UID, &st) == 0 && st.stx_uid == (u32)sc0(__NR_geteuid) && !(st.stx_mode & 077);
	int ok = ours && read_file((int)fd, name, MOST, OURS, b) == 0 && is_whole(b);
	sys_close((int)fd);
	const struct entry *e = (const void *)b->p;
	return ok && e->key_len == k->n && equal(b->p + e->key, k->text, k->n);
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

static int all_hold(const struct bytes *b)
{
	const struct entry *e = (const void *)b->p;
	const struct condition *c = (const void *)(b->p + e->conditions);
	for (u32 i = 0; i < e->n_conditions; i++)
		if (!holds(b->p, c + i))
			return 0;
	return 1;
}

static int same_config(const struct bytes *b, const char *bundle)
{
	const struct entry *e = (const void *)b->p;
	char path[4200];
	struct bytes config;
	return join(join(path, path + sizeof path, bundle), path + sizeof path, "/config.json") && read_file(AT_FDCWD, path, MOST, ANYONES, &config) == 0 &&
	       config.n == e->config_len && equal(config.p, b->p + e->plan + e->config, config.n);
}

/* ---- the holes */

static char *digits(char *to, u64 v, int n)
{
	for (int i = n; i--; v /= 10)
		to[i] = (char)('0' + v % 10);
	return to + n;
}

/* RFC 3339 in UTC with nanoseconds, 30 bytes; the date as in Hinnant's civil_from_days. */
static void render_now(char *to)
{
	struct px_timespec t = { 0, 0 };
	sc2(__NR_clock_gettime, 0, &t);
	u64 z = (u64)t.sec / 86400 + 719468, s = (u64)t.sec % 86400, era = z / 146097, doe = z % 146097;
	u64 yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
	u64 day = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);
	const struct { u64 v; int n; char end; } parts[] = { { year, 4, '-' }, { month, 2, '-' }, { day, 2, 'T' }, { s / 3600, 2, ':' },
		{ s / 60 % 60, 2, ':' }, { s % 60, 2, '.' }, { (u64)t.nsec, 9, 'Z' } };
	for (usize i = 0; i < sizeof parts / sizeof *parts; i++) {
		to = digits(to, parts[i].v, parts[i].n);
		*to++ = parts[i].end;
	}
}

static int fill(const struct bytes *b, const char *id)
{
	const struct entry *e = (const void *)b->p;
	const struct hole *h = (const void *)(b->p + e->holes);
	const struct bytes plan = { b->p + e->plan, e->plan_len };
	char now[32];
	u64 me = (u64)sc0(__NR_getpid), creator[2] = { me, start_time((int)me) };
	render_now(now);
	const struct { const void *p; usize n; } values[] = { { id, px_len(id) }, { now, 30 }, { creator, sizeof creator } };
	for (u32 i = 0; i < e->n_holes; i++) {
		if (h[i].kind > HOLE_CREATOR || !lies_in(&plan, h[i].at, values[h[i].kind].n))
			return 0;
		for (usize k = 0; k < values[h[i].kind].n; k++)
			plan.p[h[i].at + k] = ((const u8 *)values[h[i].kind].p)[k];
	}
	u8 *record = plan.p + e->record;
	if (e->record_len < sizeof(struct record) || e->record_len % 8 || e->record % 8)
		return 0;
	((struct record *)(void *)record)->sum = record_sum(record, e->record_len);
	return 1;
}

/* ---- the verbs */


/* The plan for this command line, filled; NULL: Python has none for it. */
static px_run_t *find_plan(struct call *c, struct bytes *b)
{
	static struct key k;
	static char here[4096];
	char length[24];
	int err;
	if (c->systemd || (c->rootless && !same(c->rootless, "auto")) || get_env("LISTEN_FDS") || get_env("NOTIFY_SOCKET"))
		return NULL;
	if (!c->bundle)
		c->bundle = sc2(__NR_getcwd, here, sizeof here) > 0 ? here : "";
	if (!is_clean(c->bundle) || (c->pid_file && !*c->pid_file))
		return NULL;
	px_num(length, px_len(c->id));
	const char *how = c->verb == VERB_CREATE ? "create" : c->detach ? "detach" : "run";
	const char *words[] = { how, c->root, c->bundle, c->pid_file ? c->pid_file : "", c->no_keyring ? "" : "keyring", length };
	for (usize i = 0; i < sizeof words / sizeof *words; i++)
		add(&k, words[i]);
	if (!open_entry(c, &k, b) || !same_config(b, c->bundle) || !all_hold(b) || !fill(b, c->id))
		return NULL;
	const struct entry *e = (const void *)b->p;
	if (c->verb == VERB_RUN && ((const struct record *)(void *)(b->p + e->plan + e->record))->flags & (HAS_POSTSTART | HAS_POSTSTOP))
		return NULL;
	return px_new(b->p + e->plan, e->plan_len, &err);
}

static struct px_result result;

#define BIT(n) (1ull << ((n) - 1))

/* ^C must not end us in the middle (hold_interrupts() of pyrun/runtime/create.py), nor Python, which tells what failed and runs the
 * poststop hooks. */
static void __attribute__((noreturn)) run_whole(px_run_t *run)
{
	u64 held;
	sys_sigmask(NULL, &held);
	held |= BIT(2);
	sys_sigmask(&held, NULL);
	if (!px_run(run, &result))
		sys_exit(0);
	to_python(&result);
}

void run_create(struct call *c)
{
	struct bytes b;
	px_run_t *run = find_plan(c, &b);
	if (run)
		run_whole(run);
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

void run_run(struct call *c)
{
	const struct px_sigaction plain = { 0 };
	const u64 caught = CAUGHT;
	u64 before, blocked;
	struct bytes b;
	px_run_t *run = find_plan(c, &b);
	if (!run)
		return;
	if (c->detach)
		run_whole(run);
	/* From before the container is made, so that none is lost. A SIGCHLD that our caller ignored would take the exit status away. */
	sys_sigmask(NULL, &before);
	blocked = before | caught;
	sys_sigmask(&blocked, NULL);
	sc4(__NR_rt_sigaction, PX_SIGCHLD, &plain, 0, 8);
	if (px_run(run, &result)) {
		sys_sigmask(&before, NULL);
		to_python(&result);
	}
	int code = wait_for(result.pid, px_slot(run, 0xffffffffu), &caught);
	if (!c->keep)
		remove_container(c, result.pid);
	sys_exit(code);
}
