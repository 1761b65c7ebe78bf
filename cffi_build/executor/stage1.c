/* Stage 1's birth, and its end: when it has made stage 2 and told, when its plan is done, or when all is given up. */
#include "parent.h"

/* The init's image, sealed in a memfd so that the container's /proc/PID/exe can be written by nobody (CVE-2019-5736). One per process. */
static int image_fd = -1;

static long load_image(const char *path, u64 how)
{
	long src = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0), fd, n;
	char buf[8192];
	if (src < 0)
		return src;
	if (how == 2) { /* memfds may not be executed here: the installed file, through a mount of its own that is read-only */
		struct mount_attr ro = { .attr_set = MOUNT_ATTR_RDONLY };
		sys_close((int)src);
		fd = sc3(__NR_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (fd >= 0 && (n = sc5(__NR_mount_setattr, fd, "", AT_EMPTY_PATH, &ro, sizeof ro)) < 0) {
			sys_close((int)fd);
			return n;
		}
		return fd;
	}
	fd = sys_memfd_create("pyrun-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | (how == 1 ? MFD_EXEC : 0));
	while (fd >= 0 && (n = sys_read((int)src, buf, sizeof buf)) != 0) {
		if (n < 0 || (n = px_write_all((int)fd, buf, (usize)n)) < 0) {
			sys_close((int)fd);
			fd = n;
		}
	}
	sys_close((int)src);
	if (fd >= 0 && (n = sys_fcntl((int)fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)) < 0) {
		sys_close((int)fd);
		return n;
	}
	return fd;
}

/* The image, loaded at its first use. Two threads that come first may load one each: the first is kept. */
static long find_image(const char *path, u64 how)
{
	int kept = __atomic_load_n(&image_fd, __ATOMIC_ACQUIRE);
	if (kept >= 0)
		return kept;
	long fd = load_image(path, how);
	if (fd < 0 || __atomic_compare_exchange_n(&image_fd, &kept, (int)fd, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return fd;
	sys_close((int)fd);
	return kept;
}

void px_load_image(const char *path)
{
	if (find_image(path, 1) == -EINVAL) /* Linux before 6.3 */
		find_image(path, 0);
}

struct stage {
	const int *fds;
	int count, keep, image;
	long err;
	char arg[12];
	char *argv[3];
};

/* In the vfork child: puts the inherited descriptors right above those that the user's process keeps, closes all others, execs the image. */
static int PX_CHILD stage_child(void *p)
{
	struct stage *t = p;
	int base = t->keep, high = base + t->count + 1;
	static char *const none[1];
	int moved[4100];
	for (int i = 0; i < t->count; i++)
		if ((moved[i] = (int)sys_fcntl(t->fds[i], F_DUPFD_CLOEXEC, high)) < 0)
			return t->err = moved[i], 1;
	int image = (int)sys_fcntl(t->image, F_DUPFD_CLOEXEC, high);
	if (image < 0)
		return t->err = image, 1;
	for (int i = 0; i < t->count; i++)
		if ((t->err = sys_dup3(moved[i], base + i, 0)) < 0)
			return 1;
	if ((t->err = sys_dup3(image, base + t->count, O_CLOEXEC)) < 0)
		return 1;
	sys_close_range((u32)high, ~0u, 0);
	t->err = sys_execveat(base + t->count, "", t->argv, none, AT_EMPTY_PATH);
	return 1;
}

/* s0 the init's file, b how to load it (0 memfd, 1 memfd with MFD_EXEC, 2 read-only mount), a clone flags, in0 the cgroup, out a pidfd. */
long do_clone3(struct px *p, const struct px_step *s)
{
	struct px_ctx *x = &p->x;
	int pair[2];
	int fds[4100];
	long r, plan;
	if (x->pidfd >= 0)
		return -EALREADY; /* a plan makes one child */
	long init = find_image(px_str(x, s->s0), s->b);
	if (init < 0)
		return init;
	x->substep = 1;
	if ((r = sc4(__NR_socketpair, AF_UNIX_, SOCK_SEQPACKET_ | SOCK_CLOEXEC_, 0, pair)) < 0)
		return r;
	if (x->sync >= 0) /* of an earlier try, whose errno a rule led on from */
		sys_close(x->sync);
	x->sync = pair[0];
	const int on = 1; /* see sender(), which takes a refusal for nobody */
	sc5(__NR_setsockopt, x->sync, SOL_SOCKET_, SO_PASSCRED_, &on, sizeof on);
	x->substep = 2;
	/* A slot that a rule skipped has no descriptor to hand over: its entry is cleared in the copy that the child gets. */
	u16 *inherit = (void *)(p->plan + x->h->inherit);
	for (u32 i = 0; i < x->h->n_inherit; i++)
		if (inherit[i] != PX_NONE && x->slots[inherit[i]] < 0)
			inherit[i] = PX_NONE;
	plan = sys_memfd_create("plan", MFD_CLOEXEC);
	long wrong = plan < 0 ? 0 : px_write_all((int)plan, (const char *)x->plan, x->h->size);
	if (wrong) {
		sys_close((int)plan);
		plan = wrong;
	}
	if (plan < 0) {
		sys_close(pair[1]);
		return plan;
	}
	struct stage t = { .fds = fds, .keep = (int)x->h->keep_fds, .image = (int)init };
	fds[t.count++] = pair[1];
	fds[t.count++] = (int)plan;
	fds[t.count++] = p->trace_fd >= 0 ? p->trace_fd : (int)plan;
	for (u32 i = 0; i < x->h->n_inherit; i++)
		fds[t.count++] = inherit[i] == PX_NONE ? pair[1] : x->slots[inherit[i]];
	px_num(t.arg, (u64)t.keep);
	t.argv[0] = (char *)"pyrun-init";
	t.argv[1] = t.arg;
	x->substep = 3;
	i32 pidfd = -1;
	r = px_vfork(stage_child, &t, s->a, s->in0 == PX_NONE ? -1 : px_fd(x, s->in0), &pidfd);
	sys_close(pair[1]);
	sys_close((int)plan);
	if (r < 0) { /* a rule may try again */
		sys_close(x->sync);
		x->sync = -1;
		return r;
	}
	x->stage1 = (i32)r;
	x->pidfd = pidfd;
	if (t.err < 0) {
		x->substep = 4;
		return t.err;
	}
	return s->out == PX_NONE ? 0 : px_out(x, s->out, sys_fcntl(pidfd, F_DUPFD_CLOEXEC, 0));
}

/* Waits until stage 1 speaks or dies. Stage 2 has the other end of the socket as well, so its closing does not tell of stage 1's end. */
static long stage1_speaks(struct px_ctx *x, u64 ms)
{
	struct pollfd f[2] = { { x->sync, POLLIN, 0 }, { x->pidfd, POLLIN, 0 } };
	long r = px_wait(x, f, 2, ms);
	if (r > 0 && !f[0].revents) /* the last thing that it did may have been to speak */
		r = sys_poll(f, 1, 0);
	return r;
}

#define MSG_PEEK 0x02
#define MSG_DONTWAIT 0x40

/* Reads the next message; who sent it, by the kernel's word, or 0. Whoever got hold of the other end of the socket, as a container with
 * CAP_SYS_PTRACE may, could name any process as stage 2, the init of another container too. Stage 1 can't be got at, so its word is good. */
static i32 sender(struct px_ctx *x, u32 flags)
{
	struct px_ucred_cmsg c = { 0 };
	struct px_iovec iov = { &x->msg, sizeof x->msg };
	struct px_msghdr m = { .iov = &iov, .iovlen = 1, .control = &c, .controllen = sizeof c };
	long r;
	do
		r = sc3(__NR_recvmsg, x->sync, &m, flags);
	while (r == -EINTR);
	return r > 0 && c.type == SCM_CREDENTIALS_ ? c.pid : 0;
}

static int is_child(i32 pid)
{
	return pid > 0 && sc5(__NR_waitid, 1 /* P_PID */, pid, NULL, 0x40000000 /* __WALL */ | 0x01000000 /* WNOWAIT */ | 4 /* WEXITED */ | 1 /* WNOHANG */, NULL) == 0;
}

/* Whoever waits for our answer, or comes to wait, ends: stage 1, or a stage 2 that it has not told of, which says who it is. */
static void ask_to_end(struct px_ctx *x)
{
	const i32 unknown = PX_UNKNOWN;
	sc6(__NR_sendto, x->sync, L(&unknown), 4, 0x4000 /* MSG_NOSIGNAL */ | MSG_DONTWAIT, 0, 0);
	sc2(__NR_shutdown, x->sync, 1 /* SHUT_WR */);
}

/* Stage 1 has ended, is not reaped, for who is reaped is no sender any more, and was asked to end: kills and reaps the stage 2 that it told of,
 * or reaps the one that it had made and not told of. That one's word is signed by the kernel, and so names it. */
static void reap_stage2(struct px_ctx *x)
{
	const struct px_msg *m = &x->msg;
	const long deadline = sys_now() + 10 * 1000000000L;
	for (int i = 0; i < 1000; i++) { /* and no more: who holds the other end may speak for ever */
		struct pollfd f = { x->sync, POLLIN, 0 };
		const long left = (deadline - sys_now()) / 1000000, r = sys_poll(&f, 1, left > 0 ? left : 0);
		const i32 from = r > 0 ? sender(x, MSG_DONTWAIT) : 0;
		if (r == -EINTR)
			continue;
		if (from <= 0)
			return; /* all of them have closed it */
		const i32 pid = m->kind != MSG_PID ? 0 : from == x->stage1 ? m->value : from;
		if (!is_child(pid))
			continue;
		if (from == x->stage1)
			sys_kill(pid, PX_SIGKILL);
		px_reap(pid, -1, NULL);
		return;
	}
}

/* The same, and nobody is heard any more. */
static void end_stage2(struct px_ctx *x)
{
	reap_stage2(x);
	sys_close(x->sync);
	x->sync = -1;
}

/* Stage 1 told the pid of stage 2 (a child of ours, CLONE_PARENT, so the number can't be reused before we reap it) and is gone. When it told
 * an errno as well, that is the result, and the answer for which stage 2 waits is left to an ACK. a: within so many ms. */
long do_await_pid(struct px *p, const struct px_step *s)
{
	struct px_ctx *x = &p->x;
	const struct px_msg *m = &x->msg;
	long r = stage1_speaks(x, s->a);
	const i32 from = r > 0 ? sender(x, MSG_PEEK) : 0;
	if (r == 0) {
		ask_to_end(x);
		end_stage2(x);
		return -ESRCH; /* as in px_next_msg() */
	}
	if (r > 0)
		r = px_next_msg(p, s->a);
	if (r < 0)
		return r;
	if (m->kind != MSG_PID || from != x->stage1 || !is_child(m->value))
		return -EPROTO;
	x->pid = m->value;
	x->substep = 1;
	r = sys_pidfd_open(x->pid);
	if (r < 0) { /* without one px_kill_child() would take it for somebody else's */
		sys_kill(x->pid, PX_SIGKILL);
		px_reap(x->pid, -1, NULL);
		x->pid = 0;
		return r;
	}
	const i32 stage1 = x->pidfd;
	x->pidfd = (i32)r;
	r = m->err > 0 ? 0 : px_ack(x);
	px_reap(x->stage1, stage1, NULL);
	sys_close(stage1);
	x->stage1 = 0;
	if (r < 0)
		return r;
	r = s->out == PX_NONE ? 0 : px_out(x, s->out, sys_fcntl(x->pidfd, F_DUPFD_CLOEXEC, 0));
	return r < 0 ? r : -(long)m->err;
}

/* Stage 1 ends by itself where a plan makes no stage 2. a: within so many ms it does, and with success, or says why not. */
long do_reap(struct px *p, const struct px_step *s)
{
	struct px_ctx *x = &p->x;
	i32 status = 0;
	long r = px_next_msg(p, s->a);
	if (r != -ESRCH || p->child_failed)
		return r < 0 ? r : -EPROTO; /* it had nothing to say any more */
	r = px_reap(x->stage1, x->pidfd, &status);
	if (r < 0)
		return r;
	x->stage1 = 0;
	return status ? -ECHILD : 0;
}

long px_kill_child(struct px_ctx *x)
{
	long left = 0;
	struct pollfd ended = { x->pidfd, POLLIN, 0 };
	if (x->stage1 > 0) { /* it may have made stage 2 while we failed for a reason of our own, and may be about to tell */
		ask_to_end(x);
		while (sys_poll(&ended, 1, 1000) == -EINTR)
			;
	}
	if (x->pidfd >= 0)
		sys_pidfd_send_signal(x->pidfd, PX_SIGKILL);
	if (x->stage1 > 0) {
		while (sys_poll(&ended, 1, 10000) == -EINTR)
			;
		end_stage2(x);
		left = px_reap(x->stage1, x->pidfd, NULL);
	}
	if (x->pid > 0 && x->pidfd >= 0)
		left = px_reap(x->pid, x->pidfd, NULL);
	x->stage1 = 0;
	x->pid = 0;
	return left == -ETIMEDOUT ? left : 0;
}

void px_drop_image(void)
{
	const int fd = __atomic_exchange_n(&image_fd, -1, __ATOMIC_ACQ_REL);
	if (fd >= 0)
		sys_close(fd);
}
