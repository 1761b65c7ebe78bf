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
 * stage1.c has stage 1's birth and its end. Both also serve the launcher; they call no libc.
 */
#include "parent.h"

enum { STATUS_OK, STATUS_FAILED, STATUS_YIELDED };

long px_next_msg(struct px *p, u64 ms)
{
	struct px_ctx *x = &p->x;
	struct px_msg *m = &x->msg;
	struct pollfd f = { x->sync, POLLIN, 0 };
	int reset = 0;
	long r = px_wait(x, &f, 1, ms);
	if (r < 0)
		return r;
	do
		r = sys_read(x->sync, m, sizeof *m);
	while (r == -EINTR || (r == -ECONNRESET && !reset++)); /* said once, and before what there is: it died with something of ours unread */
	if (r < 0)
		return r;
	if (r < (long)(sizeof *m - PX_TEXT))
		return -ESRCH; /* closed: the child is dead, and could not say why */
	if (m->text_len > (u32)r - (sizeof *m - PX_TEXT))
		m->text_len = (u32)r - (u32)(sizeof *m - PX_TEXT);
#ifdef PX_FAULTS
	if (m->kind == MSG_MEET && m->value == PX_DIE) {
		sys_pidfd_send_signal(x->pidfd, PX_SIGKILL);
		return px_next_msg(p, ms);
	}
#endif
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

long px_ack(struct px_ctx *x)
{
	long r = sc6(__NR_sendto, x->sync, L(&x->pid), 4, 0x4000 /* MSG_NOSIGNAL */, 0, 0);
	return r == -EPIPE || r == -ECONNRESET ? -ESRCH : r < 0 ? r : 0; /* as in px_next_msg() */
}

/* a: the rendezvous that must come, b: within so many ms, out: the child's descriptor that it tells of. The number of a seccomp listener is told on the way to one, and once: who has got hold
 * of the child's socket must not keep us here by saying it for ever. */
static long do_await(struct px *p, const struct px_step *s)
{
	const struct px_msg *m = &p->x.msg;
	for (;;) {
		long r = px_next_msg(p, s->b);
		if (r < 0)
			return r;
		if (m->kind == MSG_MEET && m->value == -1 && p->x.listener < 0 && (i32)m->substep >= 0) {
			p->x.listener = (i32)m->substep;
			if ((r = px_ack(&p->x)) < 0)
				return r;
			continue;
		}
		if (m->kind != MSG_MEET || m->value != (i32)s->a)
			return -EPROTO;
		p->x.substep = 1;
		return s->out == PX_NONE ? 0 : px_out(&p->x, s->out, sc3(__NR_pidfd_getfd, p->x.pidfd, m->substep, 0));
	}
}

/* A field of /proc/PID/stat that is a number; the name in field 2 may hold anything, so count from its last ')'. */
static long read_stat(int proc, i32 pid, int field, u64 *value)
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
	for (int f = 2; f < field && i < n; i++)
		f += buf[i] == ' ';
	*value = 0;
	while (i < n && buf[i] >= '0' && buf[i] <= '9')
		*value = *value * 10 + (u64)(buf[i++] - '0');
	return *value ? 0 : -EPROTO;
}

/* In clock ticks since boot. */
long px_start_time(int proc, i32 pid, u64 *ticks)
{
	return read_stat(proc, pid, 22, ticks);
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

#define PF_FORKNOEXEC 0x40u /* of a task's flags: it was forked, and has not begun a program since; also a zombie has them */

/* Nobody has the child's end of the socket any more: it has begun its program, or it was killed. -ESRCH: it was, by its flags in proc. A kernel may
 * close what an exec closes before it changes the flags, and then the child is in the midst of it: within so many ms it is neither any more. */
static long has_begun(struct px_ctx *x, int proc, u64 ms)
{
	const long deadline = sys_now() + (long)ms * 1000000;
	u64 flags;
	for (long ended = 0; read_stat(proc, x->pid, 9, &flags) == 0 && flags & PF_FORKNOEXEC;) {
		struct pollfd f = { x->pidfd, POLLIN, 0 };
		if (ended > 0)
			return -ESRCH;
		ended = px_wait(x, &f, 1, 1);
		if (ended < 0 && (ended != -ETIMEDOUT || (ms && sys_now() > deadline)))
			return ended;
	}
	return 0;
}

/* in0 the FIFO of its status, or the sync socket; a: within so many ms. EOF there: the exec took place, or it was killed: in1, the host's /proc,
 * tells of a child of ours. */
static long do_wait_exec(struct px *p, const struct px_step *s)
{
	struct px_ctx *x = &p->x;
	const int keep = x->sync;
	x->sync = s->in0 == PX_NONE ? keep : px_fd(x, s->in0);
	const long r = px_next_msg(p, s->a);
	x->sync = keep;
	if (r != -ESRCH || p->child_failed) /* or a child that says ESRCH, as a seccomp profile may answer its execve */
		return r < 0 ? r : -EPROTO;
	return s->in1 == PX_NONE ? 0 : has_begun(x, px_fd(x, s->in1), s->a);
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

/* in0 a directory, s0 the name of a file in it: a pid, of a child of ours by now, as we are a subreaper and its parent has ended. It is the plan's. */
static long do_adopt_pid(struct px_ctx *x, const struct px_step *s)
{
	char buf[PX_NUM + 1];
	u64 pid = 0;
	long n = sys_openat(px_fd(x, s->in0), px_str(x, s->s0), O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0), i = 0;
	if (n < 0)
		return n;
	const int file = (int)n;
	n = sys_read(file, buf, sizeof buf);
	sys_close(file);
	for (; i < n && i < 10 && buf[i] >= '0' && buf[i] <= '9'; i++)
		pid = pid * 10 + (u64)(buf[i] - '0');
	if (!pid || pid > 0x7fffffff)
		return n < 0 ? n : -EPROTO;
	x->substep = 1;
	const long fd = sys_pidfd_open((int)pid);
	if (fd < 0)
		return fd;
	x->pid = (i32)pid;
	x->pidfd = (i32)fd;
	return 0;
}

long px_side_step(struct px_ctx *x, const struct px_step *s)
{
	struct px *p = (struct px *)x;
	switch (s->op) {
	case OP_CLONE3: return do_clone3(p, s);
	case OP_AWAIT: return do_await(p, s);
	case OP_ACK: return px_ack(x);
	case OP_AWAIT_PID: return do_await_pid(p, s);
	case OP_REAP: return do_reap(p, s);
	case OP_SAVE_PID: return do_save_pid(x, s);
	case OP_PIDFD_GETFD: return px_out(x, s->out, sc3(__NR_pidfd_getfd, x->pidfd, x->listener, 0));
	case OP_WAIT_EXEC: return do_wait_exec(p, s);
	case OP_RELEASE: return do_release(x, s);
	case OP_SAVE_CGROUP: return do_save_cgroup(x, s);
	case OP_CHECK_EMPTY: return do_check_empty(x, s);
	case OP_REMOVE_CGROUP: return do_remove_cgroup(x, s);
	case OP_PID_FILE: return do_pid_file(x, s);
	case OP_ADOPT_PID: return do_adopt_pid(x, s);
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
	if (px_kill_child(x) < 0 && !out->undo_err) {
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

int px_trace(px_run_t *run)
{
	struct px *p = (struct px *)run;
	return p->x.trace ? p->trace_fd : -1;
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
