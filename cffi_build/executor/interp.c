/* The decoder and the loop: one switch, one function per step, no policy.
 *
 * px_check() is the only place that trusts nothing: it proves every offset, count, slot and rule of a plan before a step runs,
 * so the step functions need no bounds of their own. It is what the fuzzer drives.
 */
#include "steps.h"

static int table_ok(u64 off, u64 count, u64 each, u64 size, u64 align)
{
	return off % align == 0 && off <= size && count <= (size - off) / each;
}

static int string_ok(const struct px_header *h, const u8 *p, u32 off, u32 len)
{
	if (off == 0)
		return len == 0;
	if (off < h->blob || off - h->blob >= h->blob_len || len >= h->blob_len - (off - h->blob))
		return 0;
	return p[(u64)off + len] == 0;
}

static int slot_ok(const struct px_header *h, u16 slot) { return slot == PX_NONE || slot < h->n_slots; }

static int step_ok(const struct px_header *h, const u8 *p, const struct px_step *s, u32 self, u32 end)
{
	const struct px_rule *rules = (const void *)(p + h->rules);
	if (s->op == 0 || s->op >= OP_COUNT || !slot_ok(h, s->in0) || !slot_ok(h, s->in1) || !slot_ok(h, s->in2) || !slot_ok(h, s->out))
		return 0;
	if (!string_ok(h, p, s->s0, s->n0) || !string_ok(h, p, s->s1, s->n1) || !string_ok(h, p, s->s2, s->n2))
		return 0;
	if (s->rules > h->n_rules || s->n_rules > h->n_rules - s->rules)
		return 0;
	if (s->op == OP_CLOSE && s->in0 == PX_NONE)
		return 0;
	for (u32 i = 0; i < s->n_rules; i++) {
		u32 t = rules[s->rules + i].target;
		if (t != PX_NEXT && (t <= self || t > end)) /* forward only: every lane ends */
			return 0;
	}
	return 1;
}

long px_check(const void *plan, u64 len)
{
	const u8 *p = plan;
	const struct px_header *h = plan;
	u32 next = 0;
	if (len < sizeof *h || h->magic != PX_MAGIC || h->version != PX_VERSION || h->size != len)
		return -EINVAL;
	if (!table_ok(h->steps, h->n_steps, sizeof(struct px_step), len, 8) || !table_ok(h->rules, h->n_rules, sizeof(struct px_rule), len, 4) ||
	    !table_ok(h->inherit, h->n_inherit, 2, len, 2) || !table_ok(h->blob, h->blob_len, 1, len, 1))
		return -EINVAL;
	if (h->n_slots > PX_MAX_SLOTS || h->blob == 0 || h->keep_fds < 3 || h->keep_fds > 1024 || h->n_inherit > 4096)
		return -EINVAL;
	for (u32 i = 0; i < h->n_inherit; i++)
		if (!slot_ok(h, ((const u16 *)(p + h->inherit))[i]))
			return -EINVAL;
	for (u32 l = 0; l < PX_LANES; l++) {
		if (h->lane_first[l] != next || h->lane_count[l] > h->n_steps - next)
			return -EINVAL;
		next += h->lane_count[l];
		for (u32 i = h->lane_first[l]; i < next; i++)
			if (!step_ok(h, p, (const struct px_step *)(p + h->steps) + i, i, next))
				return -EINVAL;
	}
	return next == h->n_steps ? 0 : -EINVAL;
}

long px_run_step(struct px_ctx *x, const struct px_step *s)
{
	switch (s->op) {
	case OP_OPENAT2: return do_openat2(x, s);
	case OP_OPEN_TREE: return do_open_tree(x, s);
	case OP_MOVE_MOUNT: return do_move_mount(x, s);
	case OP_MOUNT_SETATTR: return do_mount_setattr(x, s);
	case OP_FSOPEN: return do_fsopen(x, s);
	case OP_FSCONFIG: return do_fsconfig(x, s);
	case OP_FSMOUNT: return do_fsmount(x, s);
	case OP_MOUNT: return do_mount(x, s);
	case OP_UMOUNT: return do_umount(x, s);
	case OP_MAKE_TARGET: return do_make_target(x, s);
	case OP_MKDIRAT: return do_mkdirat(x, s);
	case OP_MKNODAT: return do_mknodat(x, s);
	case OP_SYMLINKAT: return do_symlinkat(x, s);
	case OP_UNLINKAT: return do_unlinkat(x, s);
	case OP_WRITE_FILE: return do_write_file(x, s);
	case OP_CREATE_FILE: return do_create_file(x, s);
	case OP_COPY_UP: return do_copy_up(x, s);
	case OP_FCHOWNAT: return do_fchownat(x, s);
	case OP_SETXATTR: return do_setxattr(x, s);
	case OP_MKFIFOAT: return do_mkfifoat(x, s);
	case OP_CHECK_TYPE: return do_check_type(x, s);
	case OP_CHECK_DEVICE: return do_check_device(x, s);
	case OP_CHECK_FS: return do_check_fs(x, s);
	case OP_CHECK_NS: return do_check_ns(x, s);
	case OP_TMPFS_MODE: return do_tmpfs_mode(x, s);
	case OP_MAKE_USERNS: return do_make_userns(x, s);
	case OP_CHROOT: return do_chroot(x, s);
	case OP_PIVOT_ROOT: return do_pivot_root(x, s);
	case OP_CHDIR: return do_chdir(x, s);
	case OP_CLOSE:
		if (x->slots[s->in0] >= 0)
			sys_close(x->slots[s->in0]);
		x->slots[s->in0] = -1;
		return 0;
	case OP_GOTO: return -ECANCELED; /* its rule says where to */
	case OP_SETNS: return sc2(__NR_setns, px_fd(x, s->in0), s->a);
	case OP_UNSHARE: return sc1(__NR_unshare, s->a);
	case OP_SETRESUID: case OP_SETRESGID: case OP_SETGROUPS: return do_setres(x, s);
	case OP_SETHOSTNAME: return sc2(__NR_sethostname, px_str(x, s->s0), s->n0);
	case OP_SETDOMAINNAME: return sc2(__NR_setdomainname, px_str(x, s->s0), s->n0);
	case OP_SETSID: return sc0(__NR_setsid);
	case OP_UMASK: return sc1(__NR_umask, s->a) * 0;
	case OP_PRCTL: return sys_prctl(L(s->a), L(s->b), L(s->c), L(s->d), 0);
	case OP_CAPBSET: return do_capbset(x, s);
	case OP_CAPSET: return do_capset(x, s);
	case OP_AMBIENT: return do_ambient(x, s);
	case OP_SECCOMP: return do_seccomp(x, s);
	case OP_SETRLIMIT: return do_setrlimit(x, s);
	case OP_PERSONALITY: return sc1(__NR_personality, s->a);
	case OP_SCHED_SETATTR: return sc3(__NR_sched_setattr, 0, px_str(x, s->s0), 0);
	case OP_IOPRIO_SET: return sc3(__NR_ioprio_set, 1, 0, s->a);
	case OP_SCHED_SETAFFINITY: return sc3(__NR_sched_setaffinity, 0, s->n0, px_str(x, s->s0));
	case OP_SET_MEMPOLICY: return sc3(__NR_set_mempolicy, s->a, s->n0 ? px_str(x, s->s0) : NULL, s->b);
	case OP_KEYCTL_SESSION: return sc2(__NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	case OP_FIND_EXECUTABLE: return do_find_executable(x, s);
	case OP_SET_HOME: return do_set_home(x, s);
	case OP_CLOSE_FDS: return do_close_fds(x, s);
	case OP_EXECVE: return do_execve(x, s);
	case OP_FCHOWN_STDIO: return do_fchown_stdio(x, s);
	case OP_SPAWN: return do_spawn(x, s);
	case OP_BPF_PROG_LOAD: return do_bpf_prog_load(x, s);
	case OP_BPF_PROG_ATTACH: return do_bpf_prog_attach(x, s);
	case OP_NETLINK: return do_netlink(x, s);
	case OP_OPENPT: return do_openpt(x, s);
	case OP_SEND_FD: return do_send_fd(x, s);
	case OP_SET_STDIO: return do_set_stdio(x, s);
	case OP_CONNECT: return do_connect(x, s);
	case OP_BIND: return do_bind(x, s);
	case OP_RECEIVE_FD: return do_receive_fd(x, s);
	case OP_TTY_OUTPUT: return do_tty_output(x, s);
	case OP_DUP3: return s->a < 3 ? sys_dup3(px_fd(x, s->in0), (int)s->a, 0) : -EINVAL;
	case OP_DUP: return px_out(x, s->out, sys_fcntl((int)s->a, F_DUPFD_CLOEXEC, (long)x->keep));
	default: return px_side_step(x, s);
	}
}

#ifdef PX_FAULTS
/* Process 1 of a PID namespace can't kill itself, and asks the parent to. */
static void die(struct px_ctx *x)
{
	char byte;
	sys_kill((int)sc0(__NR_getpid), PX_SIGKILL);
	px_send_msg(x, MSG_MEET, PX_DIE, 0);
	while (sys_read(x->sync, &byte, 1) == -EINTR)
		;
	sys_exit(1);
}
#endif

/* Runs a lane from step `from` (an index into the whole table). 0, or -errno with x->step and x->substep at the place. */
long px_lane(struct px_ctx *x, u32 lane, u32 from)
{
	const struct px_step *steps = (const void *)(x->plan + x->h->steps);
	const struct px_rule *rules = (const void *)(x->plan + x->h->rules);
	u32 end = x->h->lane_first[lane] + x->h->lane_count[lane];
	x->lane = lane;
	for (u32 i = from; i < end;) {
		const struct px_step *s = steps + i;
		long start = x->trace ? sys_now() : 0, r;
		x->step = i;
		x->substep = 0;
		x->text_len = 0; /* what an error said that a rule took as done */
#ifdef PX_FAULTS
		if (x->h->kill_step == i)
			die(x);
		if (x->h->kill_step == (i | PX_CLOSED)) {
			sys_close(x->sync);
			sys_poll(NULL, 0, 300);
		}
		if (x->h->fail_step == i && !(x->h->fail_errno & PX_RULED)) { /* past the rules: such a fault always fails */
			x->err = (i32)x->h->fail_errno;
			return -(long)x->err;
		}
		r = x->h->fail_step == i ? -(long)(x->h->fail_errno & ~PX_RULED) : px_run_step(x, s);
#else
		r = px_run_step(x, s);
#endif
		if (x->trace)
			x->trace[i] = (u64)(sys_now() - start) + 1;
		if (r >= 0) {
			i++;
			continue;
		}
		u32 k = 0;
		while (k < s->n_rules && rules[s->rules + k].err != PX_ANY && rules[s->rules + k].err != (u16)-r)
			k++;
		if (k == s->n_rules) {
			x->err = (i32)-r;
			return r;
		}
		i = rules[s->rules + k].target == PX_NEXT ? i + 1 : rules[s->rules + k].target;
	}
	return 0;
}
