/* start, state, kill and delete from the record (pyrun/runtime/record.py), as pyrun/runtime has them. */
#include "launcher.h"
#include "steps.h"

#define HAS_POSTSTART 1u
#define HAS_POSTSTOP 2u
#define SHARED_PIDNS 4u
#define SYSTEMD 8u
enum blob { B_ID, B_BUNDLE, B_ROOTFS, B_CREATED, B_OWNER, B_ANNOTATIONS, B_CGROUP, B_STATE_HEAD, B_STATE_TAIL, B_START, B_DELETE, B_EXTRA, B_COUNT };
enum status { CREATING, CREATED, RUNNING, PAUSED, STOPPED };
static const char *const STATUS[] = { "creating", "created", "running", "paused", "stopped" };

struct record {
	char magic[8];
	u64 pid, start, status, creator, creator_start;
	char boot_id[36];
	u32 pad, flags, count;
	struct { u32 off, len; } blobs[B_COUNT];
};

#define BETWEEN ",\n  \"status\": \""

static struct px_result result;

static const char *blob(const struct record *r, enum blob b) { return (const char *)r + r->blobs[b].off; }

static char *place(const struct call *c, char *buf, const char *end, const char *name)
{
	return join(join(join(join(buf, end, c->root), end, "/"), end, c->id), end, name);
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

/* The record, whole and of this version and boot, or NULL. What others could have written is Python's: it holds plans that we would run.
 * So is what a power cut may have torn, and whose cgroup's name may be another's by now. */
static struct record *read_record(const struct call *c)
{
	char path[4096];
	struct bytes b;
	if (!place(c, path, path + sizeof path, "/record") || read_file(AT_FDCWD, path, 64u << 20, OURS, &b) < 0 || b.n < sizeof(struct record))
		return NULL;
	struct record *r = (struct record *)(void *)b.p;
	const char *magic = "PYRREC1";
	for (int i = 0; i < 8; i++)
		if (r->magic[i] != magic[i])
			return NULL;
	if (r->count != B_COUNT)
		return NULL;
	for (int i = 0; i < B_COUNT; i++)
		if (r->blobs[i].off > b.n || r->blobs[i].len >= b.n - r->blobs[i].off || b.p[r->blobs[i].off + r->blobs[i].len])
			return NULL;
	return is_this_boot(r) ? r : NULL;
}

static int is_frozen(const struct record *r)
{
	char path[4200], buf[256];
	if (!r->blobs[B_CGROUP].len || !join(join(path, path + sizeof path, blob(r, B_CGROUP)), path + sizeof path, "/cgroup.events"))
		return 0;
	long n = read_small(path, buf, sizeof buf);
	for (long i = 0; i + 8 <= n; i++)
		if (buf[i] == 'f' && buf[i + 1] == 'r' && buf[i + 6] == ' ')
			return buf[i + 7] == '1';
	return 0;
}

static enum status status_of(const struct call *c, const struct record *r)
{
	char path[4096];
	struct statx st;
	int alive = r->pid && start_time((int)r->pid) == r->start;
	if (!alive || r->status == 0)
		return r->status == 0 && r->creator && start_time((int)r->creator) == r->creator_start ? CREATING : STOPPED;
	if (is_frozen(r))
		return PAUSED;
	return !place(c, path, path + sizeof path, "/go") || sys_statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st) == 0 ? CREATED : RUNNING;
}

/* Runs a plan out of the record. What it opened is closed with the process. */
static int replay(const struct record *r, enum blob b, int pid)
{
	int err;
	px_run_t *run = px_new(blob(r, b), r->blobs[b].len, &err);
	if (!run)
		return -1;
	if (pid)
		px_set_pid(run, pid);
	return px_run(run, &result) ? 1 : 0;
}

void run_state(struct call *c)
{
	char pid[24];
	struct record *r = read_record(c);
	if (!r)
		return;
	enum status s = status_of(c, r);
	usize n = (usize)(px_num(pid, s == STOPPED ? 0 : r->pid) - pid);
	const struct px_iovec out[] = {
		{ (void *)blob(r, B_STATE_HEAD), r->blobs[B_STATE_HEAD].len }, { pid, n }, { (void *)BETWEEN, sizeof BETWEEN - 1 },
		{ (void *)STATUS[s], px_len(STATUS[s]) }, { (void *)blob(r, B_STATE_TAIL), r->blobs[B_STATE_TAIL].len },
	};
	static char text[1 << 16];
	usize at = 0;
	for (usize i = 0; i < 5; i++) {
		if (out[i].len > sizeof text - at)
			return;
		for (usize k = 0; k < out[i].len; k++)
			text[at++] = ((char *)out[i].base)[k];
	}
	for (usize done = 0; done < at;) {
		long w = sys_write(1, text + done, at - done);
		if (w == -EINTR)
			continue;
		if (w <= 0 && w != -EPIPE && !done)
			return;
		if (w <= 0)
			sys_exit(w == -EPIPE ? 128 + 13 : 1);
		done += (usize)w;
	}
	sys_exit(0);
}

void run_start(struct call *c)
{
	struct record *r = read_record(c);
	if (!r || r->flags & HAS_POSTSTART || status_of(c, r) != CREATED)
		return;
	int failed = replay(r, B_START, (int)r->pid);
	if (failed < 0)
		return;
	if (!failed)
		sys_exit(0);
	to_python(&result);
}

/* TERM, SIGTERM, term or a number from 1 to 64; 0: Python knows more names. */
static int parse_signal(const char *text)
{
	static const char *const NAMES[] = { "HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH" };
	static const u8 NUMBERS[] = { 1, 2, 3, 9, 10, 12, 15, 18, 19, 28 };
	int number = 0, skip;
	if (text[0] >= '0' && text[0] <= '9') {
		for (; *text >= '0' && *text <= '9' && number < 100; text++)
			number = number * 10 + (*text - '0');
		return *text || number > 64 ? 0 : number;
	}
	skip = (text[0] | 32) == 's' && (text[1] | 32) == 'i' && (text[2] | 32) == 'g' ? 3 : 0;
	for (usize i = 0; i < sizeof NUMBERS; i++) {
		const char *a = text + skip, *b = NAMES[i];
		while (*b && (*a == *b || (*b >= 'A' && *a == (*b | 32))))
			a++, b++;
		if (!*a && !*b)
			return NUMBERS[i];
	}
	return 0;
}

static int put(const struct record *r, const char *name, const char *text)
{
	char path[4200];
	if (!r->blobs[B_CGROUP].len || !join(join(path, path + sizeof path, blob(r, B_CGROUP)), path + sizeof path, name))
		return 0;
	long fd = sys_openat(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
	long n = fd < 0 ? fd : sys_write((int)fd, text, px_len(text));
	if (fd >= 0)
		sys_close((int)fd);
	return n > 0;
}

/* The signal to the init, through a pidfd that was proved to be it. Without a PID namespace of its own SIGKILL goes to the whole
 * cgroup, or its children would live on. The pidfd, or -1. */
static int send(const struct record *r, int number, enum status s)
{
	long fd = sys_pidfd_open((int)r->pid);
	if (fd < 0 || start_time((int)r->pid) != r->start)
		return -1;
	if (number == PX_SIGKILL && r->flags & SHARED_PIDNS && put(r, "/cgroup.kill", "1"))
		return (int)fd;
	if (sys_pidfd_send_signal((int)fd, number) < 0)
		return -1;
	if (number == PX_SIGKILL && s == PAUSED)
		put(r, "/cgroup.freeze", "0");
	return (int)fd;
}

void run_kill(struct call *c)
{
	int number = parse_signal(c->signal ? c->signal : "TERM");
	struct record *r = number ? read_record(c) : NULL;
	if (!r)
		return;
	enum status s = status_of(c, r);
	if (s == STOPPED && c->all)
		sys_exit(0);
	if (s == CREATING || s == STOPPED || send(r, number, s) < 0)
		return;
	sys_exit(0);
}

/* A missing container is none to be deleted by force. */
static int is_missing(const struct call *c)
{
	char path[4096];
	struct statx st;
	return place(c, path, path + sizeof path, "") && sys_statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st) == -ENOENT;
}

/* Whether systemd has ended the container's unit: it removes the cgroup last. */
static int unit_is_gone(const struct record *r)
{
	char path[4096];
	struct statx st;
	return r->blobs[B_CGROUP].len && join(path, path + sizeof path, blob(r, B_CGROUP)) &&
	       sys_statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st) == -ENOENT;
}

void run_delete(struct call *c)
{
	struct record *r = read_record(c);
	if (!r && c->force && is_missing(c))
		sys_exit(0);
	if (!r || r->flags & HAS_POSTSTOP || (r->flags & SYSTEMD && !unit_is_gone(r)))
		return;
	enum status s = status_of(c, r);
	if (s == CREATING || (s != STOPPED && !c->force))
		return;
	if (s != STOPPED) {
		int fd = send(r, PX_SIGKILL, s);
		struct pollfd p = { fd, POLLIN, 0 };
		if (fd < 0 || sys_poll(&p, 1, 10000) != 1)
			return;
		sys_close(fd);
	}
	if (replay(r, B_DELETE, 0) == 0)
		sys_exit(0);
	/* Python does it again and says what is wrong: each of its steps takes "it is gone" for done. */
}

/* What `run` does at its end: what pid was the init of is removed, unless it is another by now. */
void remove_container(struct call *c, int pid)
{
	struct record *r = read_record(c);
	if (!r || r->pid != (u64)pid || replay(r, B_DELETE, 0) == 0)
		return;
	delete_by_python(c);
}
