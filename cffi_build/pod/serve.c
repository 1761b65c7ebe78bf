/* Requests, each on a connection of its own, and what makers answer. Only root is heard. */
#include "pod.h"

#define PIPES 4                /* 0, 1 and 2 of the container, and the console's socket */
#define AT_EXITS 6

static struct pod_request heard;
static struct made said;

static void exit_path(char *to, const char *name)
{
	const char *dir = "exits/";
	for (usize i = 0; i < AT_EXITS; i++)
		to[i] = dir[i];
	for (usize i = 0; i < POD_NAME; i++)
		to[AT_EXITS + i] = name[i];
}

static int same(const char *a, const char *b)
{
	for (usize i = 0; i < POD_NAME; i++)
		if (a[i] != b[i])
			return 0;
	return 1;
}

static struct ctr *find(const char *name)
{
	for (u32 i = 0; i < CTRS; i++)
		if (ctrs[i].k.state != POD_FREE && same(ctrs[i].k.name, name))
			return ctrs + i;
	return NULL;
}

void end_call(struct call *c)
{
	if (c->fd >= 0)
		unwatch(c->fd);
	if (c->sock >= 0)
		unwatch(c->sock);
	shut(&c->fd);
	shut(&c->sock);
	shut(&c->console);
	c->use = CALL_FREE;
	c->maker = c->pid = 0;
	c->ctr = NULL;
}

static void answer(struct call *c, i32 err)
{
	reply(c->fd, POD_DONE, err, 0, 0);
	end_call(c);
}

static void answer_with(struct call *c, long fd)
{
	const struct pod_reply r = { .magic = POD_MAGIC, .kind = POD_DONE };
	const int one = (int)fd;
	if (fd < 0)
		return answer(c, (i32)-fd);
	tell(c->fd, &r, sizeof r, NULL, 0, &one, 1);
	end_call(c);
}

/* ---- CREATE */

static struct ctr *new_ctr(const struct pod_request *r)
{
	for (u32 i = 0; i < CTRS; i++)
		if (ctrs[i].k.state == POD_FREE) {
			struct ctr *c = ctrs + i;
			*c = (struct ctr){ .k = { .state = POD_MAKING, .flags = r->flags & POD_FLAGS }, .input = -1, .oom = -1, .oom_above = -1, .exit = -1, .log = -1, .next_log = -1,
					   .log_call = -1, .switch_by = NEVER, .drain_by = NEVER, .blocked = NEVER, .retry_at = NEVER,
					   .patience = (long)r->value * MS,
					   .rate = (u64)(r->flags >> POD_LOG_RATE) << 10, .rate_until = NEVER };
			for (usize k = 0; k < POD_NAME; k++)
				c->k.name[k] = r->name[k];
			c->out[0].fd = c->out[1].fd = -1;
			for (int k = 0; k < ATTACHED; k++)
				c->attached[k] = -1;
			return c;
		}
	return NULL;
}

/* The page of the exit record, so that writing it later needs none. */
static long reserve_exit(struct ctr *c)
{
	const struct pod_exit nothing = { .magic = "" };
	char path[AT_EXITS + POD_NAME];
	exit_path(path, c->k.name);
	const long fd = sys_openat(DIRECTORY, path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fd;
	c->exit = (int)fd;
	return px_write_all(c->exit, (const char *)&nothing, sizeof nothing);
}

static void unreserve_exit(const struct ctr *c)
{
	char path[AT_EXITS + POD_NAME];
	exit_path(path, c->k.name);
	sc3(__NR_unlinkat, DIRECTORY, path, 0);
}

/* theirs: the container's ends, by their numbers there. Ours are in c. */
static long make_streams(struct ctr *c, struct call *call, int *theirs)
{
	int pair[2];
	long r = 0;
	const int tty = c->k.flags & POD_TTY;
	for (int i = 0; i < 3; i++) {
		const int nothing = tty || (i == 0 && !(c->k.flags & POD_OPEN_STDIN));
		if ((r = nothing ? sys_openat(AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0) : sys_pipe2(pair, O_CLOEXEC)) < 0)
			return r;
		theirs[i] = nothing ? (int)r : i ? pair[1] : pair[0];
		if (!nothing && i)
			c->out[i - 1].fd = pair[0];
		else if (!nothing)
			c->input = pair[1];
	}
	if (tty && (r = sc4(__NR_socketpair, AF_UNIX_, SOCK_STREAM_ | SOCK_CLOEXEC_, 0, pair)) == 0) {
		theirs[3] = pair[1];
		call->console = pair[0];
	}
	return r < 0 ? r : 0;
}

static void create(struct call *call, const struct pod_request *r, struct fds *given)
{
	int theirs[PIPES] = { -1, -1, -1, -1 };
	struct ctr *c = find(r->name) ? NULL : new_ctr(r);
	if (!c)
		return answer(call, find(r->name) ? EEXIST : EUSERS);
	long e = reserve_exit(c);
	if (e == 0)
		e = make_streams(c, call, theirs);
	if (e == 0)
		e = start_maker(call, r, given, theirs);
	for (int i = 0; i < PIPES; i++)
		shut(theirs + i);
	if (e < 0) {
		unreserve_exit(c);
		forget(c);
		return answer(call, (i32)-e);
	}
	if (r->flags & POD_HAS_LOG) {
		c->log = given->fd[1];
		given->fd[1] = -1;
	}
	call->use = CALL_MAKING;
	call->kind = POD_CREATE;
	call->ctr = c;
	unwatch(call->fd);
	watch(call->sock, WATCH_MAKER, (u32)(call - calls), 0);
}

static void exec(struct call *call, const struct pod_request *r, struct fds *given)
{
	int streams[PIPES] = { -1, -1, -1, -1 };
	long null = -1;
	const struct ctr *c = find(r->name);
	if (!c || c->k.state != POD_LIVE)
		return answer(call, ESRCH);
	if (r->flags & POD_TTY) {
		if ((null = sys_openat(AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0)) < 0)
			return answer(call, (i32)-null);
		streams[0] = streams[1] = streams[2] = (int)null;
		streams[3] = given->fd[1];
	} else
		for (int i = 0; i < 3; i++)
			streams[i] = given->fd[i + 1];
	const long e = start_maker(call, r, given, streams);
	if (null >= 0)
		sys_close((int)null);
	if (e < 0)
		return answer(call, (i32)-e);
	for (usize i = 0; i < POD_NAME; i++)
		call->name[i] = r->name[i];
	call->use = CALL_MAKING;
	call->kind = POD_EXEC;
	unwatch(call->fd);
	watch(call->sock, WATCH_MAKER, (u32)(call - calls), 0);
}

/* The master, which stage 2 sent before the plan could come to its end. */
static long take_master(struct call *call)
{
	char word[256];
	struct fds got;
	const long n = receive(call->console, word, sizeof word, &got);
	for (u32 i = 1; i < got.n; i++)
		sys_close(got.fd[i]);
	return n < 0 ? n : got.n ? got.fd[0] : -ENOTTY;
}

static long come_alive(struct call *call, struct fds *got)
{
	struct ctr *c = call->ctr;
	long r = 0;
	c->k.pid = said.result.pid;
	c->k.start = said.start;
	c->k.state = POD_LIVE;
	if (got->n > 1) {
		c->oom = got->fd[1];
		c->oom_above = got->n > 2 ? got->fd[2] : -1;
		c->others = nobodys_kills(c);
		got->n = 1;
	}
	if (c->k.flags & POD_TTY) {
		if ((r = take_master(call)) >= 0)
			c->out[0].fd = c->input = (int)r;
	}
	for (u32 i = 0; i < 2; i++)
		if (c->out[i].fd >= 0)
			watch(c->out[i].fd, WATCH_STREAM, (u32)(c - ctrs), i);
	return r < 0 ? r : 0;
}

/* A maker has told how it went; it ends now. */
static void made_it(struct call *call, long n, struct fds *got)
{
	int pass[2] = { -1, said.traced && got->n > 1 ? got->fd[got->n - 1] : -1 };
	const struct pod_reply r = { .magic = POD_MAGIC, .kind = POD_RESULT, .err = said.result.err, .pid = said.result.pid };
	const int ok = said.result.status == 0 && got->n;
	if (ok)
		pass[0] = got->fd[0];
	if (pass[1] >= 0)
		got->n--;
	if (call->ctr && ok)
		come_alive(call, got);
	else if (call->ctr) {
		unreserve_exit(call->ctr);
		forget(call->ctr);
	}
	tell(call->fd, &r, sizeof r, &said.result, (usize)n - __builtin_offsetof(struct made, result), pass, !ok ? 0 : pass[1] < 0 ? 1 : 2);
	if (pass[1] >= 0)
		sys_close(pass[1]);
	unwatch(call->sock);
	shut(&call->sock);
	call->maker = 0;
	if (ok && call->kind == POD_EXEC) {
		call->use = CALL_RUNNING;
		call->pid = said.result.pid;
	} else
		end_call(call);
}

void maker_spoke(struct call *call)
{
	struct fds got;
	if (call->sock < 0)
		return;
	const long n = receive(call->sock, &said, sizeof said, &got);
	if (n == -EAGAIN)
		return;
	if (n >= (long)(sizeof said - PX_TEXT))
		made_it(call, n, &got);
	else { /* it was killed: its end, which comes as a signal, says by what */
		unwatch(call->sock);
		shut(&call->sock);
	}
	for (u32 i = 0; i < got.n; i++)
		sys_close(got.fd[i]);
}

/* ---- what there is */

static void hello(struct call *call)
{
	struct pod_reply r = { .magic = POD_MAGIC, .kind = POD_KNOWN, .value = POD_TRACES };
	static struct pod_known known[POD_TOLD];
	for (u32 i = 0; i <= CTRS; i++) {
		if (i < CTRS && ctrs[i].k.state != POD_FREE)
			known[r.count++] = ctrs[i].k;
		if (i == CTRS || r.count == POD_TOLD) {
			tell(call->fd, &r, sizeof r, known, r.count * sizeof *known, NULL, 0);
			r.count = 0;
		}
	}
	end_call(call);
}

static long tell_one(int fd, const struct ctr *c)
{
	const struct pod_reply r = { .magic = POD_MAGIC, .kind = POD_EXIT, .count = 1, .pid = c->k.pid };
	return tell(fd, &r, sizeof r, &c->k, sizeof c->k, NULL, 0);
}

/* A listener that does not take it is cut: it comes again, and hears of all that has not been dropped. */
void tell_exit(const struct ctr *c)
{
	for (u32 i = 0; i < CALLS; i++)
		if (calls[i].use == CALL_EVENTS && tell_one(calls[i].fd, c) < 0)
			end_call(calls + i);
}

static void events(struct call *call)
{
	call->use = CALL_EVENTS;
	if (reply(call->fd, POD_DONE, 0, 0, 0) < 0)
		return end_call(call);
	for (u32 i = 0; i < CTRS; i++)
		if (ctrs[i].k.state == POD_ENDED && ctrs[i].told && tell_one(call->fd, ctrs + i) < 0)
			return end_call(call);
}

static void drop(struct call *call, struct ctr *c)
{
	if (c->k.state != POD_ENDED)
		return answer(call, EBUSY);
	c->drain_by = 0;
	log_done(c);
	unreserve_exit(c);
	forget(c);
	answer(call, 0);
}

static void end(struct call *call)
{
	for (u32 i = 0; i < CTRS; i++)
		if (ctrs[i].k.state == POD_LIVE || ctrs[i].k.state == POD_MAKING)
			return answer(call, EBUSY);
	for (u32 i = 0; i < CALLS; i++)
		if (calls[i].use == CALL_MAKING)
			return answer(call, EBUSY);
	sc3(__NR_unlinkat, DIRECTORY, "sock", 0);
	reply(call->fd, POD_DONE, 0, 0, 0);
	sys_exit(0);
}

static void give_stdin(struct call *call, struct ctr *c)
{
	const int once = (c->k.flags & (POD_STDIN_ONCE | POD_TTY)) == POD_STDIN_ONCE;
	if (c->input < 0)
		return answer(call, ENXIO);
	answer_with(call, c->input);
	if (once) /* so the end of who has it now is the end of it */
		shut(&c->input);
}

static void resize(struct call *call, struct ctr *c, u32 value)
{
	struct px_winsize w = { (u16)value, (u16)(value >> 16), 0, 0 };
	if (!(c->k.flags & POD_TTY) || c->out[0].fd < 0)
		return answer(call, ENOTTY);
	const long r = sys_ioctl(c->out[0].fd, TIOCSWINSZ, &w);
	answer(call, r < 0 ? (i32)-r : 0);
}

static void with_ctr(struct call *call, const struct pod_request *r, struct fds *given)
{
	struct ctr *c = find(r->name);
	if (!c)
		return answer(call, ENOENT);
	if (r->kind == POD_DROP)
		return drop(call, c);
	if (c->k.state != POD_LIVE && !(r->kind == POD_LOG && c->k.state == POD_ENDED && !c->told))
		return answer(call, ESRCH);
	switch (r->kind) {
	case POD_LOG:
		log_switch(c, given->fd[0], call);
		given->fd[0] = -1;
		return;
	case POD_ATTACH: {
		long fd = attach(c);
		answer_with(call, fd);
		if (fd >= 0)
			sys_close((int)fd);
		return;
	}
	case POD_STDIN: return give_stdin(call, c);
	case POD_RESIZE: return resize(call, c, r->value);
	default: answer(call, ENOSYS);
	}
}

static void act(struct call *call, const struct pod_request *r, struct fds *given)
{
	if (leaving && (r->kind == POD_CREATE || r->kind == POD_EXEC))
		return answer(call, ESHUTDOWN);
	switch (r->kind) {
	case POD_HELLO: return hello(call);
	case POD_CREATE: return create(call, r, given);
	case POD_EXEC: return exec(call, r, given);
	case POD_EVENTS: return events(call);
	case POD_END: return end(call);
	case POD_GO: return answer(call, EPROTO);
	default: return with_ctr(call, r, given);
	}
}

/* Something on a connection that has not said yet what it wants, or has no more to say. */
void serve_call(struct call *call)
{
	struct fds given;
	const long n = receive(call->fd, &heard, sizeof heard, &given);
	if (n == -EAGAIN)
		return;
	if (n <= 0 || call->use != CALL_NEW)
		end_call(call);
	else {
		const long bad = pod_check(&heard, n, given.n);
		if (bad)
			answer(call, (i32)-bad);
		else
			act(call, &heard, &given);
	}
	for (u32 i = 0; i < given.n; i++)
		if (given.fd[i] >= 0)
			sys_close(given.fd[i]);
}
