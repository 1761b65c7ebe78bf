/* pyrun-init: stages 1 and 2 of a container, started by CLONE3 from a sealed memfd with the plan in a descriptor.
 *
 * argv[1] is the number K of descriptors that belong to the user's process. K is the sync socket, K+1 the plan, K+2 the trace
 * (or the plan again), K+3… the inherited slots. It is freestanding, single-threaded, and execs only what the user asked for.
 */
#include "steps.h"

static struct px_ctx ctx;

/* Says where the lane stopped; nobody may be there to hear it. */
static void __attribute__((noreturn)) fail(struct px_ctx *x)
{
	px_send_msg(x, MSG_ERROR, 0, x->substep);
	sys_exit(1);
}

/* The parent's answer brings our pid as the host sees it. PX_UNKNOWN: it could not learn that, and wants to hear from us once more. */
static void await_ack(struct px_ctx *x)
{
	i32 pid = 0;
	long r;
	do
		r = sys_read(x->sync, &pid, 4);
	while (r == -EINTR);
	if (r == 4 && pid == PX_UNKNOWN)
		px_send_msg(x, MSG_PID, 0, 0);
	if (r != 4 || pid == PX_UNKNOWN)
		sys_exit(1); /* the parent is gone, or goes: so are we */
	x->pid = pid;
}

/* Tells the parent that we are at rendezvous a and waits for its answer. in0: a descriptor of ours that it wants to take. */
static long do_meet(struct px_ctx *x, const struct px_step *s)
{
	long r = px_send_msg(x, MSG_MEET, (i32)s->a, s->in0 == PX_NONE ? 0 : (u32)px_fd(x, s->in0));
	if (r == 0)
		await_ack(x);
	if (r == 0 && x->listener >= 0) { /* the agent has it: with one of ours open its end would leave us waiting for it */
		sys_close(x->listener);
		x->listener = -1;
	}
	return r;
}

/* Nobody is behind this frame to return to. */
static void __attribute__((noreturn)) end_of(int number)
{
	sys_exit(128 + number);
}

/* Process 1 of a PID namespace gets only signals that it has a handler for, so without these `kill TERM` of a created container would do
 * nothing. Set before seccomp, which may forbid it; the exec takes them away. */
static void catch_ends(struct px_ctx *x)
{
	static const u8 ends[] = { 1 /* HUP */, 2 /* INT */, 3 /* QUIT */, 15 /* TERM */ };
	const struct px_sigaction end = { .handler = (void *)end_of, .flags = 0x04000000 /* SA_RESTORER */, .restorer = (void *)end_of };
	const struct px_step *s = (const struct px_step *)(const void *)(x->plan + x->h->steps) + x->h->lane_first[LANE_STAGE2];
	int parks = 0;
	for (u32 i = 0; i < x->h->lane_count[LANE_STAGE2]; i++)
		parks |= s[i].op == OP_PARK;
	for (usize i = 0; x->self == 1 && parks && i < sizeof ends; i++)
		sc4(__NR_rt_sigaction, ends[i], &end, 0, 8);
}

/* Stage 2 comes to life as a child of the parent, in cgroup in0 or in ours; stage 1 tells its pid and ends. a: clone flags, b: an errno that
 * the parent's AWAIT_PID is to give. Stage 2 waits for the answer to that: else it could meet, or fail, before the parent knows whom it made. */
static long do_clone3_init(struct px_ctx *x, const struct px_step *s)
{
	int cgroup = s->in0 == PX_NONE ? -1 : px_fd(x, s->in0);
	if (s->in0 != PX_NONE && cgroup < 0)
		return -EBADF; /* the plan wants it there: the parent could not open it */
	struct clone_args args = { /* its exit signal is ours, as CLONE_PARENT has it */
		.flags = s->a | CLONE_PARENT | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0), .cgroup = (u64)(cgroup >= 0 ? cgroup : 0),
	};
	long r = x->lane == LANE_STAGE1 ? sc2(__NR_clone3, &args, sizeof args) : -EINVAL;
	if (r < 0)
		return r;
	if (r > 0) {
#ifdef PX_FAULTS
		if (x->h->kill_step == (x->step | PX_UNTOLD))
			sys_kill((int)sc0(__NR_getpid), PX_SIGKILL);
#endif
		x->err = (i32)s->b;
		px_send_msg(x, MSG_PID, (i32)r, 0);
		sys_exit(0);
	}
	await_ack(x);
	x->self = (i32)sc0(__NR_getpid);
	catch_ends(x);
	if (px_lane(x, LANE_STAGE2, x->h->lane_first[LANE_STAGE2]) < 0)
		fail(x);
	sys_exit(0);
}

/* Process 1 of a PID namespace that several containers share: it is there, and takes in orphans. It ends when it is killed. */
static void __attribute__((noreturn)) park_for_good(struct px_ctx *x)
{
	const struct px_sigaction unawaited = { .flags = 2 /* SA_NOCLDWAIT */ };
	sc4(__NR_rt_sigaction, PX_SIGCHLD, &unawaited, 0, 8);
	sys_close_range((u32)x->keep, ~0u, 0);
	while (sys_poll(NULL, 0, -1) == -EINTR)
		;
	sys_exit(0);
}

/* in0 the FIFO that `start` writes to, in1 the FIFO of our status. From here errors go to the latter. a: for nothing, and for good. */
static long do_park(struct px_ctx *x, const struct px_step *s)
{
	char byte;
	long r;
	if (s->a)
		park_for_good(x);
	x->sync = px_fd(x, s->in1); /* the socket stays open till the exec: behind seccomp no call more than needed */
	x->parked = 1;
	do
		r = sys_read(px_fd(x, s->in0), &byte, 1);
	while (r == -EINTR);
	return r == 1 ? 0 : r < 0 ? r : -EPIPE;
}

long px_side_step(struct px_ctx *x, const struct px_step *s)
{
	switch (s->op) {
	case OP_MEET: return do_meet(x, s);
	case OP_CLONE3_INIT: return do_clone3_init(x, s);
	case OP_PARK: return do_park(x, s);
	default: return -ENOSYS;
	}
}

/* The arrays that the exec takes, made ahead: behind seccomp nothing may need memory. */
static void make_vectors(struct px_ctx *x)
{
	const struct px_step *s = (const struct px_step *)(const void *)(x->plan + x->h->steps) + x->h->lane_first[LANE_STAGE2];
	for (u32 i = 0; i < x->h->lane_count[LANE_STAGE2]; i++, s++)
		if (s->op == OP_EXECVE) {
			x->argv = px_vector(px_path(x, s->s0), s->n0, s->a, 0);
			x->envp = px_vector(px_path(x, s->s1), s->n1, s->b, 1);
			x->envc = s->b;
			return;
		}
}

static void __attribute__((noreturn)) run(int argc, char **argv)
{
	u64 none = 0;
	struct px_ctx *x = &ctx;
	struct px_sigaction dfl = { 0 };
	struct statx st;
	int keep = 0;
	if (argc != 2)
		sys_exit(2);
	for (const char *p = argv[1]; *p; p++)
		if (*p < '0' || *p > '9' || (keep = keep * 10 + (*p - '0')) > 1024)
			sys_exit(2);
	if (keep < 3)
		sys_exit(2);
	x->sync = keep;
	for (int sig = 1; sig < 65; sig++)
		sc4(__NR_rt_sigaction, sig, &dfl, 0, 8);
	sys_sigmask(&none, NULL); /* the parent blocked all for its vfork */
	sys_close_range((u32)keep, ~0u, CLOSE_RANGE_CLOEXEC);
	if (sys_statx(keep + 1, "", AT_EMPTY_PATH, STATX_SIZE, &st) < 0)
		sys_exit(2);
	long mem = sys_mmap(NULL, st.stx_size, 3, 2 /* MAP_PRIVATE */, keep + 1);
	if ((mem < 0 && mem > -4096) || px_check((void *)mem, st.stx_size) < 0)
		sys_exit(2);
	x->plan = (u8 *)mem;
	x->h = (const void *)mem;
	x->keep = keep;
	x->pidfd = x->cancel = x->listener = -1;
	long slots = sys_mmap(NULL, (usize)x->h->n_slots * 4 + 4, 3, 0x22, -1);
	if (slots < 0 && slots > -4096)
		sys_exit(2);
	x->slots = (i32 *)slots;
	for (u32 i = 0; i < x->h->n_slots; i++)
		x->slots[i] = -1;
	const u16 *inherit = (const void *)(x->plan + x->h->inherit);
	for (u32 i = 0; i < x->h->n_inherit; i++)
		if (inherit[i] != PX_NONE)
			x->slots[inherit[i]] = keep + 3 + (int)i;
		else
			sys_close(keep + 3 + (int)i); /* a second sync socket, that took the place of none */
	if (x->h->flags & PX_TRACE) {
		long t = sys_mmap(NULL, (usize)x->h->n_steps * 8 + 8, 3, 1 /* MAP_SHARED */, keep + 2);
		x->trace = t < 0 && t > -4096 ? NULL : (u64 *)t;
	}
	sys_close(keep + 1);
	sys_close(keep + 2);
	sys_prctl(PR_SET_NAME, L("pyrun-init"), 0, 0, 0);
	make_vectors(x);
	if (px_lane(x, LANE_STAGE1, x->h->lane_first[LANE_STAGE1]) < 0)
		fail(x);
	sys_exit(0);
}

void __attribute__((noreturn, used)) px_start(long *sp)
{
	run((int)sp[0], (char **)(sp + 1));
}
