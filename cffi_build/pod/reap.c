/* Ends of processes: containers' inits, execs, makers, and whatever they left to us.
 *
 * A maker tells of its child before it ends, and that child is ours only when the maker has ended: so where the kernel shows one that we
 * don't know, the makers' words are heard first, and then it is either known or an orphan.
 */
#include "pod.h"

struct siginfo { i32 number, error, code, pad; i32 pid; u32 uid; i32 status; i32 rest[25]; };

static i64 forgotten; /* kills of containers that are forgotten */

/* The number behind "oom_kill " in memory.events; -1: its cgroup is gone. */
static i64 oom_kills(int fd)
{
	static const char word[] = "\noom_kill ";
	char buf[512];
	const long n = fd < 0 ? 0 : sc4(__NR_pread64, fd, buf, sizeof buf, 0);
	i64 count = n > 0 ? 0 : -1;
	for (long i = 0; i + 10 < n; i++) {
		int k = 0;
		while (k < 10 && buf[i + k] == word[k])
			k++;
		if (k < 10)
			continue;
		for (i += 10; i < n && buf[i] >= '0' && buf[i] <= '9'; i++)
			count = count * 10 + (i64)(buf[i] - '0');
		break;
	}
	return count;
}

/* What the slice above has counted and no other container of ours has: c's, and those of units that are not ours. */
i64 nobodys_kills(const struct ctr *c)
{
	i64 n = oom_kills(c->oom_above) - forgotten;
	for (u32 i = 0; i < CTRS; i++) {
		const struct ctr *other = ctrs + i;
		const i64 own = other == c ? 0 : other->k.state == POD_ENDED ? (i64)other->k.oom_kills : other->k.state == POD_LIVE ? oom_kills(other->oom) : 0;
		n -= own > 0 ? own : 0;
	}
	return n;
}

/* How many of it were killed. Where systemd was quicker and has removed the scope, the slice above tells, of one that ended as what is killed does. */
static u64 kills_of(const struct ctr *c, i32 status)
{
	i64 n = oom_kills(c->oom);
	if (n < 0 && c->oom_above >= 0 && ((status & 0x7f) == 9 || status == 137 << 8))
		n = nobodys_kills(c) - c->others;
	return n > 0 ? (u64)n : 0;
}

/* In one write, into a page that is there: this must not fail for want of space. */
static void write_exit(const struct ctr *c)
{
	struct pod_exit e = { .magic = "PYEXIT1", .pid = c->k.pid, .status = c->k.status, .start = c->k.start, .ended_ns = c->k.ended_ns,
			      .oom_kills = c->k.oom_kills };
	e.sum = pod_sum(&e, sizeof e - 4);
	sc4(__NR_pwrite64, c->exit, &e, sizeof e, 0);
}

void note_end(struct ctr *c, i32 status)
{
	c->k.status = status;
	c->k.ended_ns = wall_ns();
	c->k.oom_kills = kills_of(c, status);
	c->k.state = POD_ENDED;
	write_exit(c);
	shut(&c->exit);
	arm(c->drain_by = sys_now() + 1000 * MS);
	log_done(c);
}

/* Closes all that is a container's; its place is free then. */
void forget(struct ctr *c)
{
	for (int i = 0; i < 2; i++) {
		if (c->out[i].fd >= 0)
			unwatch(c->out[i].fd);
		if (c->input == c->out[i].fd)
			c->input = -1;
		shut(&c->out[i].fd);
		if (c->out[i].part)
			sys_munmap(c->out[i].part, LINE);
		c->out[i].part = NULL;
	}
	shut(&c->input);
	if (c->k.state == POD_ENDED)
		forgotten += (i64)c->k.oom_kills;
	shut(&c->oom);
	shut(&c->oom_above);
	shut(&c->exit);
	shut(&c->log);
	shut(&c->next_log);
	cut_all(c);
	c->k.state = POD_FREE;
	c->k.name[0] = 0;
}

static struct call *call_of(i32 pid, int maker)
{
	for (u32 i = 0; i < CALLS; i++)
		if (maker ? calls[i].use == CALL_MAKING && calls[i].maker == pid : calls[i].use == CALL_RUNNING && calls[i].pid == pid)
			return calls + i;
	return NULL;
}

static struct ctr *ctr_of(i32 pid)
{
	for (u32 i = 0; i < CTRS; i++)
		if (ctrs[i].k.state == POD_LIVE && ctrs[i].k.pid == pid)
			return ctrs + i;
	return NULL;
}

/* The maker has ended. Where it had said nothing, it was killed: its client is told, and undoes what the container's record tells of. */
static void maker_ends(struct call *c, i32 status)
{
	maker_spoke(c);
	if (c->use != CALL_MAKING || c->maker <= 0)
		return;
	c->maker = 0;
	if (c->ctr) {
		char path[8 + POD_NAME] = "exits/";
		for (usize i = 0; i < POD_NAME; i++)
			path[6 + i] = c->ctr->k.name[i];
		sc3(__NR_unlinkat, DIRECTORY, path, 0);
		forget(c->ctr);
		c->ctr = NULL;
	}
	reply(c->fd, POD_RESULT, ECHILD, status, 0);
	end_call(c);
}

static void exec_ends(struct call *c, i32 status)
{
	struct pod_known k = { .state = POD_ENDED, .pid = c->pid, .status = status, .ended_ns = wall_ns() };
	const struct pod_reply r = { .magic = POD_MAGIC, .kind = POD_EXIT, .count = 1, .pid = c->pid };
	for (usize i = 0; i < POD_NAME; i++)
		k.name[i] = c->name[i];
	tell(c->fd, &r, sizeof r, &k, sizeof k, NULL, 0);
	end_call(c);
}

static int known(i32 pid)
{
	return ctr_of(pid) || call_of(pid, 0) || call_of(pid, 1);
}

void reap_all(void)
{
	struct siginfo s;
	for (;;) {
		s.pid = 0;
		const long r = sc5(__NR_waitid, 0 /* P_ALL */, 0, &s, 4 | 1 | 0x01000000 | 0x40000000 /* WEXITED, WNOHANG, WNOWAIT, __WALL */, NULL);
		if (r == -EINTR)
			continue;
		if (r < 0 || !s.pid)
			return;
		if (!known(s.pid))
			for (u32 i = 0; i < CALLS; i++)
				if (calls[i].use == CALL_MAKING)
					maker_spoke(calls + i);
		i32 status = 0;
		struct ctr *c = ctr_of(s.pid);
		struct call *exec = call_of(s.pid, 0), *maker = call_of(s.pid, 1);
		sys_wait4(s.pid, &status, 0x40000000);
		if (c)
			note_end(c, status);
		else if (exec)
			exec_ends(exec, status);
		else if (maker)
			maker_ends(maker, status);
	}
}
