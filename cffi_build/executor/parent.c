/* The parent lane: makes stage 1, answers the children's rendezvous, and undoes what it made when anything fails.
 *
 *   parent                          stage 1 (pyrun-init)            stage 2 (the container's init)
 *   CLONE3 ───────────────────────▶ setns / unshare(NEWUSER)
 *   AWAIT(maps) ◀────────────────── MEET(maps)
 *   write uid_map, gid_map
 *   ACK ──────────────────────────▶ setresuid 0, time, joins
 *   AWAIT_PID ◀──────────────────── CLONE3_INIT ──────────────────▶ (waits, so that nothing it says comes before its pid)
 *   (keeps the pid, reaps stage 1)  exits
 *      └──────────────────────────────────────────────────────────▶ setsid, …
 *   AWAIT(hooks) ◀───────────────────────────────────────────────── MEET(hooks)
 *   prestart, createRuntime
 *   ACK ──────────────────────────────────────────────────────────▶ mounts, pivot_root, privileges
 *   AWAIT(ready) ◀───────────────────────────────────────────────── MEET(ready)
 *   ACK ──────────────────────────────────────────────────────────▶ PARK on the FIFO, or EXECVE at once (run)
 *
 * A message may be MSG_ERROR in any place; a closed socket means that the child died. A child that finds the socket closed exits.
 * This file also serves the launcher; it calls no libc.
 */
#include "steps.h"
#include "px.h"

enum { STATUS_OK, STATUS_FAILED, STATUS_YIELDED };

struct px {                       /* a plan under way: the context, and what only the parent keeps */
	struct px_ctx x;
	u64 mem;                  /* bytes of the whole allocation */
	i32 trace_fd;
	u32 child_lane, child_step, child_substep;
	int child_failed;
	u8 *plan;
};

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
static long do_clone3(struct px *p, const struct px_step *s)
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

/* The next message of a child, for ms (0: however long it takes). An error of the child ends our lane with the child's own errno. */
static long next_msg(struct px *p, u64 ms)
{
	struct px_ctx *x = &p->x;
	struct px_msg *m = &x->msg;
	struct pollfd f = { x->sync, POLLIN, 0 };
	long r = px_wait(x, &f, 1, ms);
	if (r < 0)
		return r;
	do
		r = sys_read(x->sync, m, sizeof *m);
	while (r == -EINTR);
	if (r < 0)
		return r;
	if (r < (long)(sizeof *m - PX_TEXT))
		return -ESRCH; /* closed: the child is dead, and could not say why */
	if (m->text_len > (u32)r - (sizeof *m - PX_TEXT))
		m->text_len = (u32)r - (u32)(sizeof *m - PX_TEXT);
	if (m->kind != MSG_ERROR)
		return 0;
	p->child_failed = 1;
	p->child_lane = m->lane;
	p->child_step = m->step;
	p->child_substep = m->substep;
	x->text_len = 0;
	px_say(x, m->text, m->text_len);
	return m->err > 0 ? -m->err : -EPROTO;
}

static long ack(struct px_ctx *x)
{
	long r = sc6(__NR_sendto, x->sync, L(&x->pid), 4, 0x4000 /* MSG_NOSIGNAL */, 0, 0);
	return r == -EPIPE ? -ESRCH : r < 0 ? r : 0; /* as in next_msg() */
}

/* a: the rendezvous that must come, b: within so many ms. The number of a seccomp listener is told on the way to one, and once: who has got hold
 * of the child's socket must not keep us here by saying it for ever. */
static long do_await(struct px *p, const struct px_step *s)
{
	const struct px_msg *m = &p->x.msg;
	for (;;) {
		long r = next_msg(p, s->b);
		if (r < 0)
			return r;
		if (m->kind == MSG_MEET && m->value == -1 && p->x.listener < 0 && (i32)m->substep >= 0) {
			p->x.listener = (i32)m->substep;
			if ((r = ack(&p->x)) < 0)
				return r;
			continue;
		}
		return m->kind == MSG_MEET && m->value == (i32)s->a ? 0 : -EPROTO;
	}
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

/* Stage 1 was killed when it had made stage 2 and not told us. That waits for our answer, which tells it to end; its own is signed by the
 * kernel, and so names it. */
static void end_untold(struct px_ctx *x)
{
	const i32 unknown = PX_UNKNOWN;
	struct pollfd f = { x->sync, POLLIN, 0 };
	i32 pid = 0;
	if (sc6(__NR_sendto, x->sync, L(&unknown), 4, 0x4000 /* MSG_NOSIGNAL */, 0, 0) == 4 && sys_poll(&f, 1, 10000) == 1)
		pid = sender(x, 0);
	if (pid > 0)
		px_reap(pid, -1, NULL);
	sys_close(x->sync);
	x->sync = -1;
}

static int is_child(i32 pid)
{
	return pid > 0 && sc5(__NR_waitid, 1 /* P_PID */, pid, NULL, 0x40000000 /* __WALL */ | 0x01000000 /* WNOWAIT */ | 4 /* WEXITED */ | 1 /* WNOHANG */, NULL) == 0;
}

/* Stage 1 told the pid of stage 2 (a child of ours, CLONE_PARENT, so the number can't be reused before we reap it) and is gone. When it told
 * an errno as well, that is the result, and the answer for which stage 2 waits is left to an ACK. a: within so many ms. */
static long do_await_pid(struct px *p, const struct px_step *s)
{
	struct px_ctx *x = &p->x;
	const struct px_msg *m = &x->msg;
	long r = stage1_speaks(x, s->a);
	const i32 from = r > 0 ? sender(x, MSG_PEEK) : 0;
	if (r == 0) {
		end_untold(x);
		return -ESRCH; /* as in next_msg() */
	}
	if (r > 0)
		r = next_msg(p, s->a);
	if (r < 0)
		return r;
	if (m->kind != MSG_PID || from != x->stage1 || !is_child(m->value))
		return -EPROTO;
	x->pid = m->value;
	x->substep = 1;
	r = sys_pidfd_open(x->pid);
	if (r < 0) { /* without one kill_child() would take it for somebody else's */
		sys_kill(x->pid, PX_SIGKILL);
		px_reap(x->pid, -1, NULL);
		x->pid = 0;
		return r;
	}
	const i32 stage1 = x->pidfd;
	x->pidfd = (i32)r;
	r = m->err > 0 ? 0 : ack(x);
	px_reap(x->stage1, stage1, NULL);
	sys_close(stage1);
	x->stage1 = 0;
	if (r < 0)
		return r;
	r = s->out == PX_NONE ? 0 : px_out(x, s->out, sys_fcntl(x->pidfd, F_DUPFD_CLOEXEC, 0));
	return r < 0 ? r : -(long)m->err;
}

/* Stage 1 ends by itself where a plan makes no stage 2. a: within so many ms it does, and with success, or says why not. */
static long do_reap(struct px *p, const struct px_step *s)
{
	struct px_ctx *x = &p->x;
	i32 status = 0;
	long r = next_msg(p, s->a);
	if (r != -ESRCH || p->child_failed)
		return r < 0 ? r : -EPROTO; /* it had nothing to say any more */
	r = px_reap(x->stage1, x->pidfd, &status);
	if (r < 0)
		return r;
	x->stage1 = 0;
	return status ? -ECHILD : 0;
}

/* Field 22 of /proc/PID/stat, in clock ticks since boot; the name in field 2 may hold anything, so count from its last ')'. */
long px_start_time(int proc, i32 pid, u64 *ticks)
{
	char path[32], buf[1024];
	char *e = px_num(path, (u64)pid);
	const char *tail = "/stat";
	for (int i = 0; i < 6; i++)
		e[i] = tail[i];
	long fd = sys_openat(proc, path, O_RDONLY | O_CLOEXEC, 0), n;
	if (fd < 0)
		return fd;
	n = sys_read((int)fd, buf, sizeof buf - 1);
	sys_close((int)fd);
	if (n <= 0)
		return n < 0 ? n : -EPROTO;
	long i = n - 1;
	while (i > 0 && buf[i] != ')')
		i--;
	for (int f = 2; f < 22 && i < n; i++)
		f += buf[i] == ' ';
	*ticks = 0;
	while (i < n && buf[i] >= '0' && buf[i] <= '9')
		*ticks = *ticks * 10 + (u64)(buf[i++] - '0');
	return *ticks ? 0 : -EPROTO;
}

/* in0 the record, in1 /proc; at offset a: the pid (8 bytes), its start time (8 bytes), and d (8 bytes), in one write. A record without a
 * name is of a container that was deleted while we made it: nobody would find it again. */
static long do_save_pid(struct px_ctx *x, const struct px_step *s)
{
	struct statx st = { .stx_ino = 0 };
	u64 rec[4] = { (u64)x->pid, 0, s->d, 0 };
	long r = px_start_time(px_fd(x, s->in1), x->pid, &rec[1]);
	if (r < 0)
		return r;
	x->substep = 1;
	if (s->in2 != PX_NONE && px_fd(x, s->in2) >= 0 && (r = sys_statx(px_fd(x, s->in2), "", AT_EMPTY_PATH, STATX_INO, &st)) < 0)
		return r;
	rec[3] = st.stx_ino;
	x->substep = 2;
	r = sc4(__NR_pwrite64, px_fd(x, s->in0), rec, sizeof rec, s->a);
	if (r != (long)sizeof rec)
		return r < 0 ? r : -EIO;
	x->substep = 3;
	return px_linked(x, s->in0) ? 0 : -ESTALE;
}

/* a the pid, b its start time, in0 /proc: a number used again meanwhile is nobody of ours. */
static long do_pidfd_open(struct px_ctx *x, const struct px_step *s)
{
	u64 ticks = 0;
	long fd = sys_pidfd_open((int)s->a);
	if (fd < 0)
		return fd;
	x->substep = 1;
	long r = px_start_time(px_fd(x, s->in0), (i32)s->a, &ticks);
	if (r < 0 || ticks != s->b) {
		sys_close((int)fd);
		return r < 0 && r != -ENOENT ? r : -ESRCH;
	}
	return px_out(x, s->out, fd);
}

/* in0 the FIFO of its status, or the sync socket; a: within so many ms. EOF there: the exec took place. */
static long do_wait_exec(struct px *p, const struct px_step *s)
{
	struct px_ctx *x = &p->x;
	const int keep = x->sync;
	x->sync = s->in0 == PX_NONE ? keep : px_fd(x, s->in0);
	const long r = next_msg(p, s->a);
	x->sync = keep;
	if (r == -ESRCH && !p->child_failed) /* and not a child that says ESRCH, as a seccomp profile may answer its execve */
		return 0;
	return r < 0 ? r : -EPROTO;
}

/* The init may be killed this very moment: that is EPIPE, not a signal for us. */
static long do_release(struct px_ctx *x, const struct px_step *s)
{
	u64 old = px_sigpipe_off();
	long r = sys_write(px_fd(x, s->in0), "g", 1);
	px_sigpipe_back(old, r == -EPIPE);
	return r < 0 ? r : 0;
}

/* s0 a name beside s1: written and renamed, so that a reader sees the whole pid or no file. */
static long do_pid_file(struct px_ctx *x, const struct px_step *s)
{
	char num[PX_NUM];
	usize n = (usize)(px_num(num, (u64)x->pid) - num);
	sc3(__NR_unlinkat, AT_FDCWD, px_str(x, s->s0), 0); /* what a killed one left */
	long fd = sys_openat(AT_FDCWD, px_str(x, s->s0), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644), r;
	if (fd < 0)
		return fd;
	x->substep = 1;
	r = px_write_all((int)fd, num, n);
	sys_close((int)fd);
	x->substep = 2;
	if (!r)
		r = sc5(__NR_renameat2, AT_FDCWD, px_str(x, s->s0), AT_FDCWD, px_str(x, s->s1), 0);
	if (r < 0)
		sc3(__NR_unlinkat, AT_FDCWD, px_str(x, s->s0), 0);
	else if (x->made)
		x->made[x->step] = 1;
	return r;
}

/* -ETIMEDOUT: it does not end. */
static long kill_child(struct px_ctx *x)
{
	const struct px_msg *m = &x->msg;
	if (x->stage1 > 0) { /* killed between making stage 2 and telling it would leave us a child that we can't name: it ends by itself */
		struct pollfd ended = { x->pidfd, POLLIN, 0 };
		sc2(__NR_shutdown, x->sync, 1 /* SHUT_WR */);
		while (sys_poll(&ended, 1, 1000) == -EINTR)
			;
	}
	if (x->pidfd >= 0)
		sys_pidfd_send_signal(x->pidfd, PX_SIGKILL);
	long left = 0;
	if (x->stage1 > 0) {
		/* It may have made stage 2, and told, while we failed for a reason of our own. If it could not tell, stage 2 sees the socket close.
		 * Who is reaped is no sender any more, so this comes first. */
		i32 from;
		struct pollfd ended = { x->pidfd, POLLIN, 0 };
		sys_poll(&ended, 1, 10000);
		for (int i = 0; i < 1000 && (from = sender(x, MSG_DONTWAIT)) > 0; i++)
			if (from == x->stage1 && m->kind == MSG_PID && is_child(m->value)) {
				sys_kill(m->value, PX_SIGKILL);
				px_reap(m->value, -1, NULL);
			}
		left = px_reap(x->stage1, x->pidfd, NULL);
		sys_close(x->sync);
		x->sync = -1;
	}
	if (x->pid > 0 && x->pidfd >= 0)
		left = px_reap(x->pid, x->pidfd, NULL);
	x->stage1 = 0;
	x->pid = 0;
	return left == -ETIMEDOUT ? left : 0;
}

long px_side_step(struct px_ctx *x, const struct px_step *s)
{
	struct px *p = (struct px *)x;
	switch (s->op) {
	case OP_CLONE3: return do_clone3(p, s);
	case OP_AWAIT: return do_await(p, s);
	case OP_ACK: return ack(x);
	case OP_AWAIT_PID: return do_await_pid(p, s);
	case OP_REAP: return do_reap(p, s);
	case OP_SAVE_PID: return do_save_pid(x, s);
	case OP_PIDFD_GETFD: return px_out(x, s->out, sc3(__NR_pidfd_getfd, x->pidfd, x->listener, 0));
	case OP_WAIT_EXEC: return do_wait_exec(p, s);
	case OP_RELEASE: return do_release(x, s);
	case OP_CHECK_EMPTY: return do_check_empty(x, s);
	case OP_REMOVE_CGROUP: return do_remove_cgroup(x, s);
	case OP_PID_FILE: return do_pid_file(x, s);
	case OP_PIDFD_OPEN: return do_pidfd_open(x, s);
	case OP_YIELD: x->yielded = (i32)s->a; return -EINPROGRESS;
	default: return -ENOSYS;
	}
}

/* Every undo step is tried, whatever the others say; the first that fails is kept for the report. A guarded one runs only if the
 * step that it undoes did make something: what was there before is not ours to remove. */
static void undo(struct px *p, struct px_result *out)
{
	struct px_ctx *x = &p->x;
	const struct px_step *steps = (const void *)(x->plan + x->h->steps);
	u32 first = x->h->lane_first[LANE_UNDO], end = first + x->h->lane_count[LANE_UNDO];
	x->cancel = -1; /* whoever gives up wants this all the same */
	if (kill_child(x) < 0 && !out->undo_err) {
		out->undo_err = ETIMEDOUT;
		out->undo_step = x->step;
	}
	x->lane = LANE_UNDO;
	for (u32 i = first; i < end; i++) {
		u16 op = steps[i].op;
		u32 guard = op == OP_UNLINKAT || op == OP_WRITE_FILE || op == OP_REMOVE_CGROUP || op == OP_NETLINK || op == OP_UMOUNT ? (u32)(steps[i].d >> 32) : 0;
		if (guard && (guard > x->h->n_steps || !x->made[guard - 1]))
			continue;
		x->step = i;
		long r = px_run_step(x, steps + i);
		if (r < 0 && r != -ENOENT && r != -EBADF && r != -ENODEV && !out->undo_err) {
			out->undo_err = (i32)-r;
			out->undo_step = i;
		}
	}
}

static void fill_result(struct px *p, struct px_result *out, i32 status)
{
	struct px_ctx *x = &p->x;
	out->status = status;
	out->lane = p->child_failed ? p->child_lane : x->lane;
	out->step = p->child_failed ? p->child_step : x->step;
	out->substep = p->child_failed ? p->child_substep : x->substep;
	out->err = x->err;
	out->pid = x->pid;
	out->stage1 = x->stage1;
	out->yielded = x->yielded;
	out->text_len = x->text_len;
	for (u32 i = 0; i < x->text_len; i++)
		out->text[i] = x->text[i];
}

px_run_t *px_new(const void *plan, unsigned long long len, int *err)
{
	const struct px_header *h = plan;
	if ((*err = (int)-px_check(plan, len)))
		return NULL;
	u64 slots = (u64)h->n_slots * 4, size = sizeof(struct px) + slots + h->n_steps + 16 + len;
	long mem = sys_mmap(NULL, size, 3, 0x22, -1);
	if (mem < 0 && mem > -4096) {
		*err = (int)-mem;
		return NULL;
	}
	struct px *p = (struct px *)mem;
	u8 *at = (u8 *)(p + 1);
	p->mem = size;
	p->x.slots = (i32 *)(void *)at;
	p->x.made = at + slots;
	/* Steps patch pids and descriptor numbers into strings, so the plan is a copy of our own; it stays aligned to 8. */
	p->plan = (u8 *)(((usize)(at + slots + h->n_steps) + 7) & ~(usize)7);
	for (u64 i = 0; i < len; i++)
		p->plan[i] = ((const u8 *)plan)[i];
	p->x.plan = p->plan;
	p->x.h = (const void *)p->plan;
	for (u32 i = 0; i < h->n_slots; i++)
		p->x.slots[i] = -1;
	p->x.cancel = p->x.sync = p->x.pidfd = p->x.listener = p->trace_fd = -1;
	p->x.keep = (int)h->keep_fds;
	if (h->flags & PX_TRACE) {
		p->trace_fd = (i32)sys_memfd_create("trace", MFD_CLOEXEC);
		sc2(__NR_ftruncate, p->trace_fd, (u64)h->n_steps * 8 + 8);
		long t = sys_mmap(NULL, (u64)h->n_steps * 8 + 8, 3, 1 /* MAP_SHARED */, p->trace_fd);
		p->x.trace = t < 0 && t > -4096 ? NULL : (u64 *)t;
		if (!p->x.trace) /* or the child would write its times into the plan */
			((struct px_header *)(void *)p->plan)->flags &= ~PX_TRACE;
	}
	return (px_run_t *)p;
}

int px_run(px_run_t *run, struct px_result *out)
{
	struct px *p = (struct px *)run;
	struct px_ctx *x = &p->x;
	u32 from = x->yielded ? x->step + 1 : x->h->lane_first[LANE_PARENT];
	x->yielded = 0;
	out->undo_err = 0;
	long r = px_lane(x, LANE_PARENT, from);
	if (r == -EINPROGRESS && x->yielded) {
		x->err = 0;
		fill_result(p, out, STATUS_YIELDED);
		return 0;
	}
	/* A child that ended without a word was killed: its status says by what. */
	out->child_status = 0;
	if (r == -ESRCH && !p->child_failed && x->pidfd >= 0 && (x->pid > 0 || x->stage1 > 0)) {
		i32 *pid = x->pid > 0 ? &x->pid : &x->stage1;
		sys_pidfd_send_signal(x->pidfd, PX_SIGKILL);
		if (px_reap(*pid, x->pidfd, &out->child_status) != -ETIMEDOUT)
			*pid = 0;
	}
	fill_result(p, out, r < 0 ? STATUS_FAILED : STATUS_OK);
	if (r < 0)
		undo(p, out);
	return (int)-r;
}

void px_set_cancel(px_run_t *run, int fd)
{
	((struct px *)run)->x.cancel = fd;
}

int px_signals(unsigned long long mask)
{
	return (int)sc4(__NR_signalfd4, -1, &mask, 8, O_CLOEXEC | O_NONBLOCK);
}

void px_set_pid(px_run_t *run, int pid)
{
	((struct px *)run)->x.pid = pid;
}

int px_set_slot(px_run_t *run, unsigned int slot, int fd)
{
	struct px_ctx *x = &((struct px *)run)->x;
	return slot < x->h->n_slots ? (int)-px_out(x, (u16)slot, sys_fcntl(fd, F_DUPFD_CLOEXEC, (long)x->keep)) : EINVAL;
}

void px_undo(px_run_t *run, struct px_result *out)
{
	undo((struct px *)run, out);
}

int px_slot(px_run_t *run, unsigned int slot)
{
	struct px *p = (struct px *)run;
	return slot == 0xffffffffu ? p->x.pidfd : slot < p->x.h->n_slots ? p->x.slots[slot] : -1;
}

unsigned long long px_took(px_run_t *run, unsigned int step)
{
	struct px *p = (struct px *)run;
	return p->x.trace && step < p->x.h->n_steps ? p->x.trace[step] : 0;
}

void px_drop_image(void)
{
	const int fd = __atomic_exchange_n(&image_fd, -1, __ATOMIC_ACQ_REL);
	if (fd >= 0)
		sys_close(fd);
}

void px_free(px_run_t *run)
{
	struct px *p = (struct px *)run;
	for (u32 i = 0; i < p->x.h->n_slots; i++)
		if (p->x.slots[i] >= 0)
			sys_close(p->x.slots[i]);
	if (p->x.trace)
		sys_munmap(p->x.trace, (u64)p->x.h->n_steps * 8 + 8);
	if (p->trace_fd >= 0)
		sys_close(p->trace_fd);
	if (p->x.sync >= 0)
		sys_close(p->x.sync);
	if (p->x.pidfd >= 0)
		sys_close(p->x.pidfd);
	sys_munmap(p, p->mem);
}
