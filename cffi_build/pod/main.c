/* pyrun-pod: a pod's supervisor. It is the parent of the pod's containers, writes their logs, records their ends, and outlives the daemon.
 *
 *   pyrun-pod POD     with 3 the pod's directory, and perhaps 4 the cgroup that it is to be in, or 5 a pipe: it waits for a byte before it does
 *                     anything, while systemd makes a unit around it
 *
 * It answers by its exit status, an errno, when its socket listens; what goes on is a child of it, whose parent is then process 1 or the nearest
 * subreaper. One thread, fixed tables, no heap but the beginnings of lines. It opens no path of a container's.
 */
#include "pod.h"

#define CGROUP 4
#define GO 5
#define EVENTS 64
#define SPEAK_BY (3000 * MS)  /* for so long a client may be silent */
#define SO_PEERCRED 17
#define IN 1u                  /* EPOLLIN */
#define SIGTERM_ 15
#define GRACE (30000 * MS)     /* a pod's where nobody says another: terminationGracePeriodSeconds */

struct event { u32 events; u64 data; }
#if defined(__x86_64__)
__attribute__((packed))
#endif
;

struct ctr ctrs[CTRS];
struct call calls[CALLS];
long next_timer = NEVER;
int adjust;
struct px_rlimit nofile;
int leaving;
static long kill_by = NEVER;   /* leaving: when what is still there is killed */
static int epoll, listener, signals, listening;

void shut(int *fd)
{
	if (*fd >= 0)
		sys_close(*fd);
	*fd = -1;
}

long mem_map(usize n)
{
	return sys_mmap(NULL, n, 3, 0x4022 /* PRIVATE | ANONYMOUS | NORESERVE */, -1);
}

u64 wall_ns(void)
{
	struct px_timespec t;
	sc2(__NR_clock_gettime, 0, &t);
	return (u64)t.sec * 1000000000u + (u64)t.nsec;
}

long watch(int fd, enum watched what, u32 index, u32 sub)
{
	struct event e = { IN, (u64)what << 56 | (u64)sub << 32 | index };
	return sc4(__NR_epoll_ctl, epoll, 1 /* ADD */, fd, &e);
}

void unwatch(int fd)
{
	struct event e = { 0, 0 };
	sc4(__NR_epoll_ctl, epoll, 2 /* DEL */, fd, &e);
}

/* ---- the loop */

/* One that has come; 0: there is none, or no place for it. */
static int take_call(void)
{
	struct { i32 pid; u32 uid, gid; } peer = { 0, ~0u, 0 };
	u32 size = sizeof peer, i = 0;
	while (i < CALLS && calls[i].use != CALL_FREE)
		i++;
	if (i == CALLS) { /* they wait in the socket's own queue until one of ours has ended */
		unwatch(listener);
		return listening = 0;
	}
	const long fd = sc4(__NR_accept4, listener, NULL, NULL, SOCK_CLOEXEC_ | O_NONBLOCK);
	if (fd < 0)
		return 0;
	if (sc5(__NR_getsockopt, fd, SOL_SOCKET_, SO_PEERCRED, &peer, &size) < 0 || peer.uid != (u32)sc0(__NR_geteuid)) {
		sys_close((int)fd);
		return 1;
	}
	calls[i] = (struct call){ .use = CALL_NEW, .fd = (int)fd, .by = sys_now() + SPEAK_BY, .sock = -1, .console = -1 };
	arm(calls[i].by);
	watch((int)fd, WATCH_CALL, i, 0);
	return 1;
}

static void take_calls(void)
{
	while (take_call())
		;
}

/* SIGTERM: the machine is shut down, or the unit that we are in is stopped. Containers are told of that by who told us, for he tells every
 * process: a second SIGTERM is to many programs the order to drop what they are doing. So they have the time to end, and their logs are written; what
 * still lives then can't hear (process 1 of a PID namespace, without a handler) and would hold up the shutdown for 90 s: it is killed. A second
 * SIGTERM is that time's end. */
static void leave(void)
{
	kill_by = leaving ? sys_now() : sys_now() + GRACE;
	leaving = 1;
	arm(kill_by);
}

static void drain_signals(void)
{
	struct { u32 number; u32 rest[31]; } info; /* signalfd_siginfo */
	while (sys_read(signals, &info, sizeof info) > 0)
		if (info.number == SIGTERM_)
			leave();
	reap_all();
}

/* All are children that have not been waited for, so these are their pids. */
static void kill_all(void)
{
	for (u32 i = 0; i < CTRS; i++)
		if (ctrs[i].k.state == POD_LIVE)
			sc2(__NR_kill, ctrs[i].k.pid, 9);
	for (u32 i = 0; i < CALLS; i++)
		if (calls[i].use == CALL_MAKING && calls[i].maker > 0)
			sc2(__NR_kill, calls[i].maker, 9);
}

/* Ends us when all containers have, with what they wrote in their logs and their ends in exits/. */
static void leave_if_alone(void)
{
	for (u32 i = 0; i < CTRS; i++)
		if (ctrs[i].k.state != POD_FREE && !ctrs[i].told)
			return;
	for (u32 i = 0; i < CALLS; i++)
		if (calls[i].use == CALL_MAKING)
			return;
	sc3(__NR_unlinkat, DIRECTORY, "sock", 0);
	sys_exit(0);
}

static void happened(u64 data)
{
	const u32 i = (u32)data, sub = (u32)(data >> 32) & 0xff;
	switch ((enum watched)(data >> 56)) {
	case WATCH_LISTEN: return take_calls();
	case WATCH_SIGNALS: return drain_signals();
	case WATCH_CALL:
		if (i < CALLS && calls[i].use != CALL_FREE && calls[i].use != CALL_MAKING && calls[i].use != CALL_RUNNING)
			serve_call(calls + i);
		return;
	case WATCH_MAKER:
		if (i < CALLS && calls[i].use == CALL_MAKING)
			maker_spoke(calls + i);
		return;
	case WATCH_STREAM:
		if (i < CTRS && sub < 2 && ctrs[i].k.state != POD_FREE && ctrs[i].out[sub].fd >= 0 && !ctrs[i].pend)
			log_read(ctrs + i, ctrs[i].out + sub);
		return;
	}
}

static void timers(void)
{
	const long now = sys_now();
	if (now < next_timer)
		return;
	next_timer = NEVER;
	if (now >= kill_by) {
		kill_by = NEVER;
		kill_all();
	}
	arm(kill_by);
	for (u32 i = 0; i < CALLS; i++)
		if (calls[i].use == CALL_NEW) {
			if (now >= calls[i].by)
				end_call(calls + i);
			else
				arm(calls[i].by);
		}
	for (u32 i = 0; i < CTRS; i++)
		if (ctrs[i].k.state == POD_LIVE || ctrs[i].k.state == POD_ENDED)
			log_timers(ctrs + i, now);
}

static int free_call(void)
{
	for (u32 i = 0; i < CALLS; i++)
		if (calls[i].use == CALL_FREE)
			return 1;
	return 0;
}

static void __attribute__((noreturn)) loop(void)
{
	struct event e[EVENTS];
	int busy = 0;
	for (;;) {
		if (!listening && free_call())
			listening = watch(listener, WATCH_LISTEN, 0, 0) == 0;
		long ms = busy ? 1000 : -1;
		if (next_timer != NEVER) {
			const long left = (next_timer - sys_now() + MS - 1) / MS;
			ms = left < 0 ? 0 : ms < 0 || left < ms ? left : ms;
		}
		const long n = sc6(__NR_epoll_pwait, epoll, L(e), EVENTS, ms, 0, 0);
		for (long i = 0; i < n; i++)
			happened(e[i].data);
		if (next_timer != NEVER)
			timers();
		if (leaving)
			leave_if_alone();
		busy = n > 0 ? 1 : busy && !(n == 0 && ms == 1000 && (log_cools(), 1));
	}
}

/* ---- the start */

static void __attribute__((noreturn)) fail(long r)
{
	sys_exit(r < 0 && r > -126 ? (int)-r : 125);
}

static long listen_here(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX_, .sun_path = "/proc/self/fd/3/sock" };
	long fd = sc3(__NR_socket, AF_UNIX_, SOCK_SEQPACKET_ | SOCK_CLOEXEC_ | O_NONBLOCK, 0), r;
	if (fd < 0)
		return fd;
	sc1(__NR_umask, 0077);
	r = sc3(__NR_bind, fd, &a, sizeof a);
	if (r == 0)
		r = sc2(__NR_listen, fd, 128);
	return r < 0 ? r : fd;
}

/* The OOM killer takes us last: with us go the logs and the ends of all containers. Where that is not allowed, so be it. */
static void be_spared(void)
{
	char buf[16];
	const long fd = sys_openat(AT_FDCWD, "/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC, 0), n = fd < 0 ? 0 : sys_read((int)fd, buf, sizeof buf);
	for (long i = 0; i < n && buf[i] != '\n'; i++)
		if (buf[i] >= '0' && buf[i] <= '9')
			adjust = adjust * 10 + buf[i] - '0';
	if (n > 0 && buf[0] == '-')
		adjust = -adjust;
	if (fd >= 0) {
		sc4(__NR_pwrite64, fd, "-998", 4, 0);
		sys_close((int)fd);
	}
}

/* The one that stays, born in the cgroup if there is one: a move there would wait for the kernel's next RCU grace period. */
static long fork_into(int cgroup)
{
	struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = PX_SIGCHLD, .cgroup = (u64)cgroup };
	if (cgroup < 0)
		return fork_here();
	const long pid = sc2(__NR_clone3, &args, sizeof args);
	if (pid == 0)
		sys_close(cgroup);
	return pid;
}

/* Who started us says when the unit is there. With his end nobody would know of us. */
static void wait_for_go(void)
{
	char byte;
	struct statx st;
	if (sys_statx(GO, "", AT_EMPTY_PATH, STATX_TYPE, &st) == 0 && sys_read(GO, &byte, 1) != 1)
		sys_exit(125 /* ECANCELED */);
}

/* Returns the cgroup that was handed over, or -1: asked first of all, before another descriptor has its number. */
static int prepare(void)
{
	u64 all = ~0ULL;
	struct px_sigaction plain = { 0 };
	struct statx st;
	wait_for_go();
	const int cgroup = sys_statx(CGROUP, "", AT_EMPTY_PATH, STATX_TYPE, &st) == 0 ? CGROUP : -1;
	for (int sig = 1; sig < 65; sig++)
		sc4(__NR_rt_sigaction, sig, &plain, 0, 8);
	sys_sigmask(&all, NULL);
	sys_close_range(CGROUP + 1, ~0u, 0);
	sys_fcntl(DIRECTORY, F_SETFD, FD_CLOEXEC);
	const long made = sc3(__NR_mkdirat, DIRECTORY, "exits", 0700);
	if (made < 0 && made != -EEXIST)
		fail(made);
	const long fd = listen_here();
	if (fd < 0)
		fail(fd);
	listener = (int)fd;
	return cgroup;
}

/* A descriptor more or less must not decide whether a container's log is written. Makers give back what was. */
static void take_descriptors(void)
{
	struct px_rlimit most;
	if (sc4(__NR_prlimit64, 0, PX_RLIMIT_NOFILE, NULL, &nofile) < 0)
		return;
	most = (struct px_rlimit){ nofile.hard, nofile.hard };
	sc4(__NR_prlimit64, 0, PX_RLIMIT_NOFILE, &most, NULL);
}

static void __attribute__((noreturn)) run(int argc)
{
	u64 heard = 1ULL << (PX_SIGCHLD - 1) | 1ULL << (SIGTERM_ - 1);
	if (argc != 2)
		sys_exit(EINVAL);
	const long pid = fork_into(prepare());
	if (pid < 0)
		fail(pid);
	if (pid)
		sys_exit(0);
	sc0(__NR_setsid);
	sys_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	sys_prctl(PR_SET_NAME, L("pyrun-pod"), 0, 0, 0);
	sc1(__NR_chdir, "/");
	be_spared();
	take_descriptors();
	epoll = (int)sc1(__NR_epoll_create1, O_CLOEXEC);
	signals = (int)sc4(__NR_signalfd4, -1, &heard, 8, O_CLOEXEC | O_NONBLOCK);
	watch(signals, WATCH_SIGNALS, 0, 0);
	loop();
}

void __attribute__((noreturn, used)) px_start(long *sp)
{
	run((int)sp[0]);
}
