/* The record of a container (pyrun/runtime/record.py): whole or not at all; and what the container's status is by it. */
#include "launcher.h"
#include "steps.h"

const char *const STATUS[] = { "creating", "created", "running", "paused", "stopped" };

/* Of all that is behind what steps write, but the sum itself. n is a multiple of 8, as a record's length. */
u32 record_sum(const u8 *record, usize n)
{
	const usize first = 40, sum_at = __builtin_offsetof(struct record, sum);
	u64 total = 0xcbf29ce484222325ull;
	for (usize at = first; at + 8 <= n; at += 8) {
		u64 word = *(const u64 *)(const void *)(record + at);
		if (at == (sum_at & ~7ul))
			word &= 0xffffffffull << (sum_at & 4 ? 0 : 32);
		total = (total ^ word) * 0x100000001b3ull;
	}
	return (u32)(total ^ total >> 32);
}

/* Field 22 of /proc/PID/stat; 0 when the process is gone or only a zombie, without a thread that has outlived its first (field 20). The name
 * in field 2 may hold anything: count from its last ')'.
 * Where /proc does not tell, Python says so: what may run must not be taken for stopped. */
u64 start_time(int pid)
{
	char path[40], buf[1024];
	char *e = join(path, path + sizeof path, "/proc/");
	join(px_num(e, (u64)pid), path + sizeof path, "/stat");
	long n = read_small(path, buf, sizeof buf), i = n - 1;
	if (n < 0 && ((n != -ENOENT && n != -ESRCH) || sys_kill(pid, 0) == 0))
		to_python(NULL);
	while (i > 0 && buf[i] != ')')
		i--;
	if (i <= 0 || i + 2 >= n)
		return 0;
	int ended = buf[i + 2] == 'Z' || buf[i + 2] == 'X', f = 2;
	u64 ticks = 0, threads = 0;
	for (; i < n && f <= 22; i++) {
		u64 digit = (u64)(buf[i] - '0');
		f += buf[i] == ' ';
		if (digit < 10 && f == 20)
			threads = threads * 10 + digit;
		if (digit < 10 && f == 22)
			ticks = ticks * 10 + digit;
	}
	return ended && threads < 2 ? 0 : ticks;
}

static int is_this_boot(const struct record *r)
{
	char now[64];
	if (read_small("/proc/sys/kernel/random/boot_id", now, sizeof now) < 36)
		to_python(NULL);
	for (int i = 0; i < 36; i++)
		if (now[i] != r->boot_id[i])
			return 0;
	return 1;
}

static u64 inode(const char *path)
{
	struct statx st = { .stx_ino = 0 };
	sys_statx(AT_FDCWD, path, 0, STATX_INO, &st);
	return st.stx_ino;
}

/* Whether pids and start times are to us what they were to who wrote the record: in its PID and its time namespace, and if /proc is ours. */
static int is_this_place(const struct record *r)
{
	char me[PX_NUM], self[PX_NUM] = "";
	px_num(me, (u64)sc0(__NR_getpid));
	sc4(__NR_readlinkat, AT_FDCWD, "/proc/self", self, sizeof self - 1);
	return same(me, self) && inode("/proc/self/ns/pid") == r->pidns && inode("/proc/self/ns/time") == r->timens;
}

/* The record, whole, of this container, version, boot and place, or NULL. What others could have written is Python's: it holds plans that we
 * would run. So is a copy, whose plans are another container's, what a power cut may have torn, and whose cgroup's name may be another's. */
struct record *read_record(struct call *c)
{
	char path[4096];
	struct bytes b;
	if (!join(join(join(path, path + sizeof path, c->root), path + sizeof path, "/"), path + sizeof path, c->id))
		return NULL;
	c->dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (c->dir < 0 || read_file((int)c->dir, "record", 64u << 20, OURS, &b) < 0)
		return NULL;
	struct record *r = (struct record *)(void *)b.p;
	const char *magic = "PYRREC3";
	if (b.n < sizeof *r || b.n % 8 || r->sum != record_sum(b.p, b.n))
		return NULL;
	for (int i = 0; i < 8; i++)
		if (r->magic[i] != magic[i])
			return NULL;
	if (r->count != B_COUNT)
		return NULL;
	for (int i = 0; i < B_COUNT; i++)
		if (r->blobs[i].off > b.n || r->blobs[i].len >= b.n - r->blobs[i].off || b.p[r->blobs[i].off + r->blobs[i].len])
			return NULL;
	return same(blob(r, B_ID), c->id) && is_this_boot(r) && is_this_place(r) ? r : NULL;
}

static int is_frozen(const struct record *r)
{
	char path[4200], buf[256];
	if (!r->blobs[B_CGROUP].len || !join(join(path, path + sizeof path, blob(r, B_CGROUP)), path + sizeof path, "/cgroup.events"))
		return 0;
	if (inode(blob(r, B_CGROUP)) != r->cgroup) /* or the name is another's by now */
		to_python(NULL);
	long n = read_small(path, buf, sizeof buf);
	if (n < 0)
		to_python(NULL); /* the init may have moved to another cgroup */
	for (long i = 0; i + 8 <= n; i++)
		if (buf[i] == 'f' && buf[i + 1] == 'r' && buf[i + 6] == ' ')
			return buf[i + 7] == '1';
	return 0;
}

enum status status_of(const struct call *c, const struct record *r)
{
	struct statx st;
	int alive = r->pid && start_time((int)r->pid) == r->start;
	if (r->status == 0) /* Python looks whether its create is still at work */
		to_python(NULL);
	if (!alive)
		return STOPPED;
	if (is_frozen(r))
		return PAUSED;
	return sys_statx((int)c->dir, "go", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st) == 0 ? CREATED : RUNNING;
}

/* The container's cgroup, open; -1: it has none, or another has its name by now; less: Python says why it can't be opened. */
int own_cgroup(const struct record *r)
{
	struct statx st;
	long fd = r->cgroup ? sys_openat(AT_FDCWD, blob(r, B_CGROUP), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0) : -ENOENT;
	if (fd < 0)
		return fd == -ENOENT ? -1 : -2;
	if (sys_statx((int)fd, "", AT_EMPTY_PATH, STATX_INO, &st) == 0 && st.stx_ino == r->cgroup)
		return (int)fd;
	sys_close((int)fd);
	return -1;
}

/* What `state` prints, with no NUL at its end. Its length, or 0: it does not fit. */
usize render_state(const struct record *r, enum status s, char *text, usize room)
{
	const char *end = text + room;
	char pid[PX_NUM], *to = text;
	px_num(pid, s == STOPPED ? 0 : r->pid);
	const char *const parts[] = { blob(r, B_STATE_HEAD), pid, ",\n  \"status\": \"", STATUS[s], blob(r, B_STATE_TAIL) };
	for (usize i = 0; i < sizeof parts / sizeof *parts; i++)
		to = join(to, end, parts[i]);
	return to ? (usize)(to - text) : 0;
}
