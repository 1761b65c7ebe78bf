/* create and run from a plan that Python has kept: compare, fill the holes, run it. */
#include "kept.h"
#include "steps.h"

#define DIRECTORY "/.plans~"

/* The entry's file, out of a directory that nobody but us may have written to. */
static int open_entry(const struct call *c, const struct key *k, struct bytes *b)
{
	char dir[4200], name[17];
	struct statx st;
	u64 hash = 0xcbf29ce484222325ull;
	if (!join(join(dir, dir + sizeof dir, c->root), dir + sizeof dir, DIRECTORY))
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
	int ok = ours && read_entry((int)fd, name, k, b);
	sys_close((int)fd);
	return ok;
}

static int same_config(const struct bytes *b, const char *bundle)
{
	const struct entry *e = (const void *)b->p;
	char path[4200];
	struct bytes config;
	return join(join(path, path + sizeof path, bundle), path + sizeof path, "/config.json") && read_file(AT_FDCWD, path, MOST, ANYONES, &config) == 0 &&
	       config.n == e->config_len && equal(config.p, b->p + e->plan + e->config, config.n);
}

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
	char now[32];
	u64 me = (u64)sc0(__NR_getpid), creator[2] = { me, start_time((int)me) };
	render_now(now);
	const struct bytes values[HOLE_KINDS] = {
		[HOLE_ID] = { (u8 *)id, px_len(id) }, [HOLE_CREATED] = { (u8 *)now, 30 }, [HOLE_CREATOR] = { (u8 *)creator, sizeof creator },
	};
	u8 *record = b->p + e->plan + e->record;
	if (e->record_len < sizeof(struct record) || e->record_len % 8 || e->record % 8 || !fill_holes(b, values))
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
	int err;
	if (c->systemd || (c->rootless && !same(c->rootless, "auto")) || get_env("LISTEN_FDS") || get_env("NOTIFY_SOCKET"))
		return NULL;
	if (!c->bundle)
		c->bundle = sc2(__NR_getcwd, here, sizeof here) > 0 ? here : "";
	if (!is_clean(c->bundle) || (c->pid_file && !*c->pid_file))
		return NULL;
	const char *how = c->verb == VERB_CREATE ? "create" : c->detach ? "detach" : "run";
	const char *words[] = { how, c->root, c->bundle, c->pid_file ? c->pid_file : "", c->no_keyring ? "" : "keyring" };
	for (usize i = 0; i < sizeof words / sizeof *words; i++)
		add(&k, words[i]);
	add_number(&k, px_len(c->id));
	if (!open_entry(c, &k, b) || !same_config(b, c->bundle) || !all_hold(b) || !fill(b, c->id))
		return NULL;
	const struct entry *e = (const void *)b->p;
	if (c->verb == VERB_RUN && ((const struct record *)(void *)(b->p + e->plan + e->record))->flags & (HAS_POSTSTART | HAS_POSTSTOP))
		return NULL;
	return px_new(b->p + e->plan, e->plan_len, &err);
}

void run_create(struct call *c)
{
	struct bytes b;
	px_run_t *run = find_plan(c, &b);
	if (run)
		run_whole(run, TOLD);
}

void run_run(struct call *c)
{
	struct bytes b;
	int pid;
	px_run_t *run = find_plan(c, &b);
	if (!run)
		return;
	if (c->detach)
		run_whole(run, TOLD);
	int code = run_foreground(run, TOLD, &pid);
	if (!c->keep)
		remove_container(c, pid);
	sys_exit(code);
}
