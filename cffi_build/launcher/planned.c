/* create, run and exec by a planner that runs already: it is asked for the plan, and the plan is carried out here.
 *
 * The planner (pyrun/cli/planner.py) gets our command line; what else it must know of us it reads in /proc/PID, as Python here would read
 * /proc/self. No planner, no answer in time, or one that we don't understand: Python plans. Nothing has been done by then.
 */
#include "launcher.h"
#include "steps.h"

#define ANSWER_MS 60
#define MOST (1u << 18)            /* of a request, and of an answer */
#define SO_PEERCRED 17
#define MSG_TRUNC 0x20
#define MSG_NOSIGNAL 0x4000

enum how { WHOLE, FOREGROUND, FOREGROUND_THEN_DELETE };
struct answer { char magic[8]; u32 how, log, root, id, plan, unused; }; /* and what they are offsets of; the plan is the last */

static u8 room[MOST] __attribute__((aligned(8)));
static struct px_result result;

/* Connected to the planner of this root, if one listens there; -1. Only who could also write our records is believed. */
static int connect_to(const char *root)
{
	struct { u16 family; char path[108]; } address = { AF_UNIX_, "" };
	const char *end = address.path + sizeof address.path;
	struct { i32 pid; u32 uid, gid; } peer = { 0, ~0u, 0 };
	u32 size = sizeof peer;
	if (!join(join(address.path, end, root), end, "/.planner~"))
		return -1;
	long fd = sc3(__NR_socket, AF_UNIX_, SOCK_SEQPACKET_ | SOCK_CLOEXEC_ | O_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (sc3(__NR_connect, fd, L(&address), sizeof address) == 0 && sc5(__NR_getsockopt, fd, SOL_SOCKET_, SO_PEERCRED, L(&peer), L(&size)) == 0 &&
	    peer.uid == (u32)sc0(__NR_geteuid))
		return (int)fd;
	sys_close((int)fd);
	return -1;
}

/* The request: its magic, where the state is unless the command line says so, and that. Its length, or 0. */
static usize write_request(const char *root, char *const *words, int count)
{
	char *at = (char *)room;
	const char *end = at + sizeof room - 1;
	at = join(at, end, "PYASK1");
	for (int i = -1; at && i < count; i++)
		at = join(at + 1, end, i < 0 ? root : words[i]);
	return at ? (usize)(at + 1 - (char *)room) : 0;
}

static const char *text_at(usize n, u32 at)
{
	const struct answer *a = (const void *)room;
	return at >= sizeof *a && at < a->plan && a->plan < n ? (const char *)room + at : NULL;
}

/* The plan out of an answer of n bytes; NULL: it is none. */
static px_run_t *read_answer(struct call *c, usize n)
{
	const struct answer *a = (const void *)room;
	const char *magic = "PYPLAN2";
	int err;
	for (int i = 0; i < 8; i++)
		if (n < sizeof *a || a->magic[i] != magic[i])
			return NULL;
	if (a->how > FOREGROUND_THEN_DELETE || a->plan % 8 || a->plan <= sizeof *a || a->plan >= n || room[a->plan - 1])
		return NULL;
	c->log = text_at(n, a->log);
	c->root = text_at(n, a->root);
	c->id = text_at(n, a->id);
	if (!c->log || !c->root || !c->id || !is_clean(c->root) || !is_id(c->id) || !log_ok(c))
		return NULL;
	return px_new(room + a->plan, n - a->plan, &err);
}

static px_run_t *ask(struct call *c, char *const *words, int count)
{
	int fd = connect_to(c->root);
	if (fd < 0 && !same(c->root, "/run/pyrun"))
		fd = connect_to("/run/pyrun");
	usize n = fd < 0 ? 0 : write_request(c->root, words, count);
	if (!n || sc6(__NR_sendto, fd, L(room), n, MSG_NOSIGNAL, 0, 0) != (long)n)
		return NULL;
	char init[4200];
	if (in_package(init, sizeof init, "/bin/pyrun-init"))
		px_load_image(init); /* which takes as long as half a plan, and the planner has a processor of its own */
	struct pollfd p = { fd, POLLIN, 0 };
	long got = sys_poll(&p, 1, ANSWER_MS) == 1 ? sc6(__NR_recvfrom, fd, L(room), sizeof room, MSG_TRUNC, 0, 0) : -1;
	sys_close(fd);
	return got > 0 && got <= (long)sizeof room ? read_answer(c, (usize)got) : NULL;
}

/* ---- running it */

#define BIT(n) (1ull << ((n) - 1))

/* HUP, INT and TERM, but for those that we ignore: they wait, and undo what is half made (pyrun/cli/interrupts.py). */
static u64 ending(void)
{
	static const u8 NUMBERS[] = { 1, 2, 15 };
	struct px_sigaction now;
	u64 mask = 0;
	for (usize i = 0; i < sizeof NUMBERS; i++)
		if (sc4(__NR_rt_sigaction, NUMBERS[i], NULL, &now, 8) == 0 && now.handler != (void *)1)
			mask |= BIT(NUMBERS[i]);
	return mask;
}

/* Runs it with `held` blocked. Python tells of a failure, and runs the poststop hooks. But an exec it does again: the container may have changed
 * meanwhile, and a step of its plan have another number. That has the mask that we came with, unless a signal has undone it; else what comes
 * from now on waits for Python, too, or it would keep the hooks from running. */
static void run_or_python(const struct call *c, px_run_t *run, u64 held)
{
	u64 before, mask, cancels = ending();
	int cancel = px_signals(cancels);
	sys_sigmask(NULL, &before);
	mask = before | held | cancels;
	sys_sigmask(&mask, NULL);
	px_set_cancel(run, cancel);
	if (px_run(run, &result)) {
		mask = before | (c->verb != VERB_EXEC || result.err == ECANCELED ? cancels : 0);
		sys_sigmask(&mask, NULL);
		to_python(c->verb == VERB_EXEC ? NULL : &result);
	}
	sys_close(cancel);
}

/* All children that have ended, those that the container left behind among them. The status of pid, or -1: it still runs. That of exit(255) where there
 * is no child, so that nobody can tell. */
static int reap(int pid)
{
	int status, found = -1;
	long r;
	while ((r = sys_wait4(-1, &status, 1 /* WNOHANG */)) > 0)
		if (r == pid)
			found = status;
	return found < 0 && r == -ECHILD ? 255 << 8 : found;
}

/* Not KILL and STOP, which nobody can catch; not what a fault of our own raises; 32 and 33 are a C library's. */
#define CAUGHT (~(BIT(4) | BIT(7) | BIT(8) | BIT(9) | BIT(11) | BIT(19) | BIT(32) | BIT(33)))

/* Hands signals on until pid has ended; its exit code as a shell has it. The caught ones are blocked. We keep no descriptor but those that we were
 * given, and pidfd: a seccomp agent's listener, or a lock of our caller's, must not live as long as we wait. */
static int wait_for(int pid, int pidfd)
{
	const u64 caught = CAUGHT;
	int status;
	if (pidfd > 3)
		sys_close_range(3, (u32)pidfd - 1, 0);
	sys_close_range((u32)pidfd + 1, ~0u, 0);
	while ((status = reap(pid)) < 0) {
		long number = sc4(__NR_rt_sigtimedwait, &caught, 0, 0, 8);
		if (number > 0 && number != PX_SIGCHLD)
			sys_pidfd_send_signal(pidfd, (int)number);
	}
	return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

static u64 number_in(const char *text)
{
	u64 n = 0;
	while (text && *text >= '0' && *text <= '9' && n < 1u << 30)
		n = n * 10 + (u64)(*text++ - '0');
	return n;
}

void run_wait(struct call *c)
{
	const int pid = (int)number_in(c->pid), pidfd = (int)number_in(c->pidfd);
	if (pid < 1 || pidfd < 3 || !c->root || !c->id)
		return;
	const int code = wait_for(pid, pidfd);
	if (c->removes)
		remove_container(c, pid, code);
	sys_exit(code);
}

static int run_foreground(const struct call *c, px_run_t *run, int *pid)
{
	const struct px_sigaction plain = { 0 };
	/* From before the process is made, so that none is lost. A SIGCHLD that our caller ignored would take the exit status away. */
	sc4(__NR_rt_sigaction, PX_SIGCHLD, &plain, 0, 8);
	run_or_python(c, run, CAUGHT);
	*pid = result.pid;
	int pidfd = (int)sys_fcntl(px_slot(run, 0xffffffffu), F_DUPFD_CLOEXEC, 3);
	px_free(run);
	return wait_for(result.pid, pidfd);
}

void run_planned(struct call *c, char *const *words, int count)
{
	int pid;
	if (sc0(__NR_geteuid) != 0 || get_env("LISTEN_FDS") || get_env("NOTIFY_SOCKET"))
		return;
	px_run_t *run = ask(c, words, count);
	u32 how = ((const struct answer *)(const void *)room)->how;
	if (!run)
		return;
	if (how == WHOLE) {
		run_or_python(c, run, 0);
		sys_exit(0);
	}
	int code = run_foreground(c, run, &pid);
	if (how == FOREGROUND_THEN_DELETE)
		remove_container(c, pid, code);
	sys_exit(code);
}
