/* A maker: a short-lived copy of us that carries one plan out, for that may take minutes (hooks) while the logs must flow.
 *
 *   client                      pyrun-pod                    maker
 *   CREATE, plan ─────────────▶ pipes, a place, clone ─────▶ 0, 1, 2 the container's, 3 the console socket; px_run
 *      ◀──────────────────────────────────────── YIELD ───── (systemd is to make the unit)
 *      ─────────────────────────────────────────── GO ─────▶ px_run goes on
 *      (closes: all is undone) ────────────────────────────▶ it is what px_run waits for beside its child
 *                               ◀── result, pidfd ────────── and ends: the kernel gives its child to us, who are the subreaper
 *      ◀──────── RESULT, pidfd
 *
 * It holds the client's connection for that; what it makes sees none of our descriptors, for pyrun-init closes all it was not given.
 */
#include "pod.h"

#define PLAN_MOST (64u << 20)
enum { CLIENT = 4, SUPERVISOR, PLAN, PLACED };

static struct made made;
static struct pod_request heard;

/* A copy of the plan that nobody else can change, for it is checked once. */
static px_run_t *load(int fd, int *err)
{
	struct statx st = { .stx_size = 0 };
	long r = sys_statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &st);
	if (r < 0 || !st.stx_size || st.stx_size > PLAN_MOST) {
		*err = r < 0 ? (int)-r : EFBIG;
		return NULL;
	}
	const long mem = mem_map(st.stx_size);
	if (mem < 0 && mem > -4096) {
		*err = (int)-mem;
		return NULL;
	}
	for (u64 at = 0; at < st.stx_size; at += (u64)r)
		if ((r = sc4(__NR_pread64, fd, mem + (long)at, st.stx_size - at, at)) <= 0) {
			*err = r ? (int)-r : EIO;
			return NULL;
		}
	px_run_t *run = px_new((void *)mem, st.stx_size, err);
	sys_munmap((void *)mem, st.stx_size);
	return run;
}

/* The client acts, and says GO. Anything else, or its end: it gives up. */
static int yielded(int conn, const struct px_result *r)
{
	struct fds got;
	struct pollfd f = { conn, POLLIN, 0 };
	if (reply(conn, POD_YIELD, 0, r->yielded, r->pid ? r->pid : r->stage1) < 0 || sys_poll(&f, 1, 120000) != 1)
		return 0;
	const long n = receive(conn, &heard, sizeof heard, &got);
	for (u32 i = 0; i < got.n; i++)
		sys_close(got.fd[i]);
	return n > 0 && pod_check(&heard, n, got.n) == 0 && heard.kind == POD_GO;
}

static void run_it(px_run_t *run, int conn, struct px_result *out)
{
	px_set_cancel(run, conn);
	while (px_run(run, out) == 0 && out->status == 2)
		if (!yielded(conn, out)) {
			out->undo_err = 0;
			px_undo(run, out);
			out->status = 1;
			out->err = ECANCELED;
			out->pid = 0;
			return;
		}
}

/* CGROUP/memory.events, where the kernel counts who it killed for want of memory; -1. above: of the cgroup's parent, where systemd has made it as a
 * scope: that it removes itself as soon as nothing runs there, perhaps before we have read it. */
static int open_events(const char *cgroup, int above)
{
	static const char scope[] = ".scope";
	char path[4100];
	usize n = px_len(cgroup);
	for (usize i = 0; above && i < 6; i++)
		if (n < 6 || cgroup[n - 6 + i] != scope[i])
			return -1;
	while (above && n && cgroup[--n] != '/')
		;
	const char *name = "/memory.events";
	if (!n || n > 4000)
		return -1;
	for (usize i = 0; i < n; i++)
		path[i] = cgroup[i];
	for (usize i = 0; i < 15; i++)
		path[n + i] = name[i];
	const long fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	return fd < 0 ? -1 : (int)fd;
}

/* Containers must not inherit what keeps us from the OOM killer, nor our descriptors' limit. */
static void be_ordinary(void)
{
	u64 none = 0;
	char number[PX_NUM + 1], *e = number;
	struct px_sigaction plain = { 0 };
	const long fd = sys_openat(AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC, 0);
	if (adjust < 0)
		*e++ = '-';
	e = px_num(e, (u64)(adjust < 0 ? -adjust : adjust));
	if (fd >= 0) {
		sys_write((int)fd, number, (usize)(e - number));
		sys_close((int)fd);
	}
	if (nofile.soft)
		sc4(__NR_prlimit64, 0, PX_RLIMIT_NOFILE, &nofile, NULL);
	sc4(__NR_rt_sigaction, 13 /* SIGPIPE */, &plain, 0, 8);
	sys_sigmask(&none, NULL);
	sys_prctl(PR_SET_NAME, L("pyrun-make"), 0, 0, 0);
}

/* Standard streams at 0 to 2 and the console's socket at 3, where plans look for them; the client at 4, pyrun-pod at 5, the plan at 6. All else is closed: a
 * hook may take minutes, and nobody may wait so long for the end of a stream that we only have a copy of. */
static long place(int *fds)
{
	for (int i = 0; i < PLACED; i++) {
		const long high = sys_fcntl(fds[i], F_DUPFD_CLOEXEC, 2 * PLACED);
		if (high < 0)
			return high;
		fds[i] = (int)high;
	}
	for (int i = 0; i < PLACED; i++) {
		const long r = sys_dup3(fds[i], i, i < 3 ? 0 : O_CLOEXEC);
		if (r < 0)
			return r;
	}
	sys_close_range(PLACED, ~0u, 0);
	return 0;
}

static void __attribute__((noreturn)) make(const struct call *c, const struct pod_request *r, int plan, const int *streams, int sock)
{
	int err = 0, pass[POD_FDS], n = 0;
	int fds[PLACED] = { streams[0], streams[1], streams[2], streams[3] < 0 ? streams[0] : streams[3], c->fd, sock, plan };
	be_ordinary();
	const long placed = place(fds);
	if (placed < 0) /* the client hears that we ended */
		sys_exit(1);
	px_run_t *run = load(PLAN, &err);
	sys_close(PLAN);
	if (run)
		run_it(run, CLIENT, &made.result);
	else {
		made.result.status = 1;
		made.result.err = err;
		made.result.lane = ~0u; /* no step's: it did not come to that */
	}
	if (made.result.status == 0) {
		pass[n++] = px_slot(run, 0xffffffffu);
		if ((pass[n] = open_events(r->path, 0)) >= 0) {
			n++;
			if ((pass[n] = open_events(r->path, 1)) >= 0)
				n++;
		}
		if ((pass[n] = px_trace(run)) >= 0) {
			n++;
			made.traced = 1;
		}
		const long proc = sys_openat(AT_FDCWD, "/proc", O_PATH | O_CLOEXEC | O_DIRECTORY, 0);
		px_start_time((int)proc, made.result.pid, &made.start);
	}
	made.result.text_len = made.result.text_len > PX_TEXT ? PX_TEXT : made.result.text_len;
	tell(SUPERVISOR, &made, sizeof made - PX_TEXT + made.result.text_len, NULL, 0, pass, (u32)n);
	sys_exit(0);
}

/* given: the plan's memfd first; streams: what is to be 0, 1, 2 and perhaps 3. Our copies of both are the caller's to close. The maker's pid, with
 * c->sock to it, or -errno. */
long start_maker(struct call *c, const struct pod_request *r, struct fds *given, const int *streams)
{
	int pair[2];
	long pid = sc4(__NR_socketpair, AF_UNIX_, SOCK_SEQPACKET_ | SOCK_CLOEXEC_, 0, pair);
	if (pid < 0)
		return pid;
	pid = fork_here();
	if (pid == 0)
		make(c, r, given->fd[0], streams, pair[1]);
	sys_close(pair[1]);
	if (pid < 0) {
		sys_close(pair[0]);
		return pid;
	}
	c->sock = pair[0];
	c->maker = (i32)pid;
	return pid;
}
