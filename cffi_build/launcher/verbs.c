/* start, state, kill and delete from the record, as pyrun/runtime has them. */
#include "launcher.h"
#include "steps.h"

static struct px_result result;

/* Runs a plan out of the record, about what we hold (-1: nothing). What it opened is closed with the process. */
static int replay(const struct call *c, const struct record *r, enum blob b, int pid, int cgroup)
{
	int err;
	px_run_t *run = px_new(blob(r, b), r->blobs[b].len, &err);
	if (!run || px_set_slot(run, HELD_STATE, (int)c->dir) || (cgroup >= 0 && px_set_slot(run, HELD_CGROUP, cgroup)))
		return -1;
	if (pid)
		px_set_pid(run, pid);
	return px_run(run, &result) ? 1 : 0;
}

/* Writes it to stdout and ends; returns where nothing could be written. */
void print(const char *text, usize n)
{
	for (usize done = 0; done < n;) {
		long w = sys_write(1, text + done, n - done);
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

void run_state(struct call *c)
{
	static char text[1 << 16];
	struct record *r = read_record(c);
	usize n = r ? render_state(r, status_of(c, r), text, sizeof text) : 0;
	if (n)
		print(text, n);
}

void run_start(struct call *c)
{
	struct record *r = read_record(c);
	if (!r || r->flags & HAS_POSTSTART || status_of(c, r) != CREATED)
		return;
	int failed = replay(c, r, B_START, (int)r->pid, -1);
	if (failed < 0)
		return;
	if (!failed)
		sys_exit(0);
	to_python(&result);
}

/* TERM, SIGTERM, term or a number from 0, which only asks, to 64; -1: Python knows more names. */
static int parse_signal(const char *text)
{
	static const char *const NAMES[] = { "HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH" };
	static const u8 NUMBERS[] = { 1, 2, 3, 9, 10, 12, 15, 18, 19, 28 };
	int number = 0, skip;
	if (text[0] >= '0' && text[0] <= '9') {
		for (; *text >= '0' && *text <= '9' && number < 100; text++)
			number = number * 10 + (*text - '0');
		return *text || number > 64 ? -1 : number;
	}
	skip = (text[0] | 32) == 's' && (text[1] | 32) == 'i' && (text[2] | 32) == 'g' ? 3 : 0;
	for (usize i = 0; i < sizeof NUMBERS; i++) {
		const char *a = text + skip, *b = NAMES[i];
		while (*b && (*a == *b || (*b >= 'A' && *a == (*b | 32))))
			a++, b++;
		if (!*a && !*b)
			return NUMBERS[i];
	}
	return -1;
}

static long put(int cgroup, const char *name, const char *text)
{
	long fd = cgroup < 0 ? -EBADF : sys_openat(cgroup, name, O_WRONLY | O_CLOEXEC, 0);
	long n = fd < 0 ? fd : sys_write((int)fd, text, px_len(text));
	if (fd >= 0)
		sys_close((int)fd);
	return n;
}

/* The signal to the init, through a pidfd that was proved to be it. Without a PID namespace of its own SIGKILL goes to the whole
 * cgroup, or its children would live on; what is in a threaded one Python kills. The pidfd, or -1. */
static int send(const struct record *r, int number, enum status s, int cgroup)
{
	long fd = sys_pidfd_open((int)r->pid);
	if (fd < 0 || start_time((int)r->pid) != r->start)
		return -1;
	const long killed = number == PX_SIGKILL && r->flags & SHARED_PIDNS ? put(cgroup, "cgroup.kill", "1") : 0;
	if (killed > 0)
		return (int)fd;
	if (killed == -EOPNOTSUPP || sys_pidfd_send_signal((int)fd, number) < 0)
		return -1;
	if (number == PX_SIGKILL && s == PAUSED)
		put(cgroup, "cgroup.freeze", "0");
	return (int)fd;
}

void run_kill(struct call *c)
{
	int number = parse_signal(c->signal ? c->signal : "TERM");
	struct record *r = number < 0 ? NULL : read_record(c);
	if (!r)
		return;
	enum status s = status_of(c, r);
	if (s == STOPPED && c->all && !(r->flags & SHARED_PIDNS))
		sys_exit(0);
	if (s == CREATING || s == STOPPED || send(r, number, s, number == PX_SIGKILL ? own_cgroup(r) : -1) < 0)
		return;
	sys_exit(0);
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
	if (!r && c->force && c->dir == -ENOENT) /* a missing container is none to be deleted by force */
		sys_exit(0);
	if (!r || !r->status || r->flags & HAS_POSTSTOP || (r->flags & SYSTEMD && !unit_is_gone(r)))
		return;
	int cgroup = own_cgroup(r);
	enum status s = status_of(c, r);
	if (cgroup < -1 || (s != STOPPED && !c->force))
		return;
	if (s != STOPPED) {
		int fd = send(r, PX_SIGKILL, s, cgroup);
		struct pollfd p = { fd, POLLIN, 0 };
		if (fd < 0 || sys_poll(&p, 1, 10000) != 1)
			return;
		sys_close(fd);
	}
	if (replay(c, r, B_DELETE, 0, cgroup) == 0)
		sys_exit(0);
	/* Python does it again and says what is wrong, or kills what is still there by force. */
}

/* What `run` does at its end: what pid was the init of is removed, unless it is another by now, and what has outlived the init where there was
 * no PID namespace to take it along. */
void remove_container(struct call *c, int pid, int code)
{
	become_delete(c, code, 0);
	struct record *r = read_record(c);
	if (!r || r->pid != (u64)pid)
		return;
	int cgroup = own_cgroup(r);
	if (r->flags & SHARED_PIDNS && put(cgroup, "cgroup.kill", "1") == -EOPNOTSUPP) { /* a threaded one, as in send() */
		become_delete(c, code, 1);
		to_python(NULL);
	}
	int failed = cgroup < -1 ? 1 : replay(c, r, B_DELETE, 0, cgroup);
	if (failed && !(failed > 0 && result.err == ENOENT)) /* that is: another delete was quicker */
		to_python(NULL); /* it says what is in the way */
}
