/* Steps that talk to others: hooks and helpers, BPF, netlink, terminals, sockets. */
#include "steps.h"

/* One process that runs fn(arg) on our memory until it execs or exits (vfork); signals wait meanwhile. Returns its pid. */
long px_vfork(int (*fn)(void *), void *arg, u64 flags, int cgroup, i32 *pidfd)
{
	u64 all = ~0ULL, old;
	usize size = 65536;
	long stack = sys_mmap(NULL, size, 3, 0x20022 /* PRIVATE|ANONYMOUS|STACK */, -1);
	if (stack < 0 && stack > -4096)
		return stack;
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | flags | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (u64)(usize)pidfd, .exit_signal = PX_SIGCHLD, .stack = (u64)stack, .stack_size = size,
		.cgroup = (u64)(cgroup >= 0 ? cgroup : 0),
	};
	sys_sigmask(&all, &old);
	long r = clone3_call(&args, sizeof args, fn, arg);
	/* Profiles of engines answer clone3 with ENOSYS, because a filter can't read its flags: a startContainer hook runs behind one. */
	if (r == -ENOSYS && cgroup < 0)
		r = clone_call(__NR_clone, L(args.flags | args.exit_signal), stack + L(size), L(pidfd), fn, arg);
	sys_sigmask(&old, NULL);
	sys_munmap((void *)stack, size);
	return r;
}

struct spawn {
	const char *path;
	char **argv, **envp;
	int in, out;           /* its standard input; its standard output and error; negative: ours */
	int dir;               /* its working directory, or negative */
	int bound;             /* it ends with us: the parent kills stage 2, and knows of no child of it */
	long err;              /* what execve said */
};

/* In the vfork child: only raw calls, nothing is written to but our struct. */
static int PX_CHILD spawn_child(void *arg)
{
	struct spawn *p = arg;
	struct px_sigaction dfl = { 0 };
	u64 none = 0;
	for (int sig = 1; sig < 65; sig++)
		sc4(__NR_rt_sigaction, sig, &dfl, 0, 8);
	sys_sigmask(&none, NULL);
	if (p->bound)
		sys_prctl(PR_SET_PDEATHSIG, PX_SIGKILL, 0, 0, 0);
	if (p->in < 0 || (sys_dup3(p->in, 0, 0) >= 0 && sys_dup3(p->out, 1, 0) >= 0 && sys_dup3(p->out, 2, 0) >= 0)) {
		sys_close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
		p->err = p->dir < 0 ? 0 : sc1(__NR_fchdir, p->dir);
		if (p->err == 0)
			p->err = sc3(__NR_execve, p->path, p->argv, p->envp);
	}
	return 127;
}

static void patch_pid(char *p, u64 pid, int zeros)
{
	char num[PX_NUM];
	usize n = (usize)(px_num(num, pid) - num), pad = n < 10 ? 10 - n : 0;
	for (usize i = 0; i < 10; i++)
		p[i] = zeros ? (i < pad ? '0' : num[i - pad]) : (i < n ? num[i] : ' ');
}

/* Feeds its input, which is closed and set to -1 when all is said (-2: nobody reads it), and keeps the first of what it says until it ends or its time is up.
 * 0, -ETIMEDOUT, or -ECANCELED. */
static long spawn_watch(struct px_ctx *x, int pidfd, int *in, int out, const char *data, usize len, u64 ms)
{
	char buf[1024];
	ms = ms >> 31 ? 0 : ms; /* more than poll(2) takes, 24 days: for ever */
	long deadline = ms ? sys_now() + (long)ms * 1000000 : 0;
	struct pollfd p[4] = { { pidfd, POLLIN, 0 }, { out, POLLIN, 0 }, { *in, POLLOUT, 0 }, { x->cancel, POLLIN, 0 } };
	for (;;) {
		i64 left = ms ? (deadline - sys_now()) / 1000000 : -1;
		if (ms && left <= 0)
			return -ETIMEDOUT;
		long r = sys_poll(p, 4, left);
		if (r < 0 && r != -EINTR)
			return r;
		if (r <= 0)
			continue;
		if (p[3].revents)
			return -ECANCELED;
		if (p[1].revents) {
			long n = sys_read(out, buf, sizeof buf);
			if (n > 0)
				px_say(x, buf, (usize)n);
			else if (n != -EAGAIN)
				p[1].fd = -1;
			if (n > 0 && !(p[0].revents && x->text_len == PX_TEXT)) /* what it left running may never cease to talk */
				continue;
		}
		if (p[2].revents) {
			long n = sys_write(*in, data, len);
			if (n > 0) {
				data += n;
				len -= (usize)n;
			}
			if ((n < 0 && n != -EAGAIN) || !len) {
				sys_close(*in);
				p[2].fd = -1;
				*in = n == -EPIPE ? -2 : -1;
			}
		}
		if (p[0].revents)
			return 0;
	}
}

/* How it ended, as a line below what it said. */
static long spawn_failed(struct px_ctx *x, int status)
{
	char num[PX_NUM];
	int sig = status & 0x7f;
	px_num(num, (u64)(sig ? sig : status >> 8 & 0xff));
	x->text_len = x->text_len > PX_TEXT - 64 ? PX_TEXT - 64 : x->text_len;
	px_say(x, "\n", x->text_len ? 1 : 0);
	px_say(x, sig ? "signal " : "exit status ", sig ? 7 : 12);
	px_say(x, num, px_len(num));
	return -ECHILD;
}

/* Runs it; `in` and `out` are our ends of its pipes, of which `in` is closed here. */
static long spawn_run(struct px_ctx *x, struct spawn *p, int in, int out, const char *data, u32 len, u64 ms)
{
	int status = 0;
	i32 pidfd = -1;
	sys_fcntl(in, F_SETFL, O_NONBLOCK);
	sys_fcntl(out, F_SETFL, O_NONBLOCK);
	u64 old = px_sigpipe_off(); /* a hook need not read its state */
	long child = px_vfork(spawn_child, p, 0, -1, &pidfd), r = child;
	sys_close(p->in);
	sys_close(p->out);
	if (child > 0) {
		x->substep = 1;
		if (!len) {
			sys_close(in);
			in = -1;
		}
		r = spawn_watch(x, pidfd, &in, out, data, len, ms);
		if (r < 0)
			sys_pidfd_send_signal(pidfd, PX_SIGKILL);
		const long reaped = px_reap((i32)child, pidfd, &status);
		r = r < 0 ? r : reaped;
		sys_close(pidfd);
		x->substep = 2;
		if (p->err < 0)
			r = p->err;
		else if (r == 0 && status)
			r = spawn_failed(x, status);
	}
	if (in >= 0)
		sys_close(in);
	px_sigpipe_back(old, in == -2);
	return r;
}

/* in0 working directory, s0 path and arguments, s1 environment, s2 standard input; a low 32 bits: a timeout in ms (0: none), high: a number for the substep, b offset in s2 and c offset in s0 where ten
 * characters become the container's pid (PX_NEXT: nowhere), d low 32 bits: argument count, high: environment count.
 * With bit 62 of d it has our standard streams, and ends with us.
 * Fails with -ECHILD and text when it does not exit 0; SIGPIPE is off in both our sides. */
long do_spawn(struct px_ctx *x, const struct px_step *s)
{
	int in[2], out[2];
	u64 argc = s->d & 0xffffffffu, envc = s->d >> 32 & 0x3fffffffu;
	const int ours = (int)(s->d >> 62 & 1);
	u64 pid = (u64)(x->self > 0 ? x->self : x->pid > 0 ? x->pid : x->stage1); /* as who reads it sees it (runtime.md, State) */
	char *args = (char *)px_str(x, s->s0), *data = (char *)px_path(x, s->s2);
	if (px_room(s->b, 10, s->n2))
		patch_pid(data + s->b, pid, 0);
	if (px_room(s->c, 10, s->n0))
		patch_pid(args + s->c, pid, 1);
	/* The first string is the file, the rest its argv. */
	char **argv = px_vector(args, s->n0, argc, 0), **envp = px_vector(px_path(x, s->s1), s->n1, envc, 1);
	if (envp && s->d >> 63 && x->home[0])
		envp[envc] = x->home;
	struct spawn p = { args, argv ? argv + 1 : NULL, envp, -1, -1, px_fd(x, s->in0), ours || x->lane == LANE_STAGE2, 0 };
	long r = !argv || !envp || argc < 2 ? -EINVAL : ours ? 0 : sys_pipe2(in, O_CLOEXEC);
	if (r == 0 && !ours && (r = sys_pipe2(out, O_CLOEXEC)) < 0) {
		sys_close(in[0]);
		sys_close(in[1]);
	}
	if (r == 0 && ours)
		r = spawn_run(x, &p, -1, -1, data, 0, (u32)s->a);
	else if (r == 0) {
		p.in = in[0];
		p.out = out[1];
		r = spawn_run(x, &p, in[1], out[0], data, s->n2, (u32)s->a);
		sys_close(out[0]);
	}
	px_vector_free(argv, argc, 0);
	px_vector_free(envp, envc, 1);
	if (r == 0)
		x->text_len = 0;
	x->substep |= (u32)(s->a >> 32) << 8; /* behind PARK nobody has the plan: this tells which hook it was */
	return r;
}

/* s0 the instructions of a cgroup device program. */
long do_bpf_prog_load(struct px_ctx *x, const struct px_step *s)
{
	union bpf_attr attr;
	char *p = (char *)&attr;
	for (usize i = 0; i < sizeof attr; i++)
		p[i] = 0;
	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = (u64)(usize)px_str(x, s->s0);
	attr.insn_cnt = s->n0 / 8;
	attr.license = (u64)(usize)"Apache-2.0";
	/* EAGAIN: a signal came meanwhile, as one does in a program with children and other threads (bpf_check() in the kernel). */
	long r = -EAGAIN;
	for (int i = 0; i < 100 && r == -EAGAIN; i++)
		r = sc3(__NR_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
	return px_out(x, s->out, r);
}

/* in0 the cgroup, in1 the program; a flags (BPF_F_ALLOW_MULTI). */
long do_bpf_prog_attach(struct px_ctx *x, const struct px_step *s)
{
	union bpf_attr attr;
	char *p = (char *)&attr;
	for (usize i = 0; i < sizeof attr; i++)
		p[i] = 0;
	attr.target_fd = (u32)px_fd(x, s->in0);
	attr.attach_bpf_fd = (u32)px_fd(x, s->in1);
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = (u32)s->a;
	return sc3(__NR_bpf, BPF_PROG_ATTACH, &attr, sizeof attr);
}

/* Sends one request and reads what the kernel says of it. */
static long netlink_ask(int fd, const struct nlmsghdr *head)
{
	char buf[2048] __attribute__((aligned(4)));
	long r = sys_write(fd, head, head->nlmsg_len);
	while (r >= 0) {
		do
			r = sys_read(fd, buf, sizeof buf);
		while (r == -EINTR);
		const struct nlmsghdr *h = (const void *)buf;
		if (r >= (long)(sizeof *h + sizeof(int)) && h->nlmsg_type == NLMSG_ERROR)
			return *(const int *)(buf + sizeof *h);
	}
	return r;
}

/* s0 rtnetlink requests with NLM_F_ACK, one behind the other, in the network namespace we are in: each is sent when the one before it is done, and
 * the substep tells which. a: offset where in0's number is put (PX_NEXT: nowhere). */
static long netlink_send(struct px_ctx *x, const struct px_step *s)
{
	char *msg = (char *)px_str(x, s->s0);
	if (px_room(s->a, 4, s->n0)) {
		u32 v = (u32)px_fd(x, s->in0);
		for (int i = 0; i < 4; i++)
			msg[s->a + (u64)i] = (char)(v >> 8 * i);
	}
	u32 at = 0;
	do { /* checked whole before the first: without an answer we would wait for ever */
		const struct nlmsghdr *head = (const void *)(msg + at);
		if ((usize)head % 4 || s->n0 - at < sizeof *head || head->nlmsg_len < sizeof *head || head->nlmsg_len > s->n0 - at ||
		    !(head->nlmsg_flags & NLM_F_ACK))
			return -EINVAL;
		at += head->nlmsg_len;
	} while (at < s->n0);
	long r = 0, fd = sc3(__NR_socket, AF_NETLINK_, SOCK_RAW_ | SOCK_CLOEXEC_, NETLINK_ROUTE);
	if (fd < 0)
		return fd;
	x->substep = 1;
	if (x->made && x->lane == LANE_PARENT) /* a refused one may be half done: a link that moves is renamed after it has moved */
		x->made[x->step] = 1;
	for (at = 0; r == 0 && at < s->n0; at += ((const struct nlmsghdr *)(const void *)(msg + at))->nlmsg_len) {
		x->substep++;
		r = netlink_ask((int)fd, (const void *)(msg + at));
	}
	sys_close((int)fd);
	return r;
}

struct visit {
	struct px_ctx *x;
	const struct px_step *s;
	long r;
};

static int PX_CHILD netlink_visit(void *arg)
{
	struct visit *v = arg;
	v->x->substep = 1000;
	v->r = sc2(__NR_setns, px_fd(v->x, v->s->in1), CLONE_NEWNET);
	if (v->r == 0)
		v->r = netlink_send(v->x, v->s);
	return 0;
}

/* With in1 it is sent in that network namespace, by a child: this process stays where it is. */
long do_netlink(struct px_ctx *x, const struct px_step *s)
{
	struct visit v = { x, s, -ECHILD };
	i32 pidfd = -1;
	long child;
	if (s->in1 == PX_NONE)
		v.r = netlink_send(x, s);
	else if ((child = px_vfork(netlink_visit, &v, 0, -1, &pidfd)) < 0)
		v.r = child;
	else {
		while (sys_wait4((int)child, NULL, 0) == -EINTR)
			;
		sys_close(pidfd);
	}
	return v.r;
}

/* in0 the devpts mount; out the master, in2 the slot of the slave, opened through the master and so by no path. a columns, b rows. */
long do_openpt(struct px_ctx *x, const struct px_step *s)
{
	int unlock = 0;
	long fd = sys_openat2(px_fd(x, s->in0), px_str(x, s->s0), O_RDWR | O_NOCTTY | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	if (fd < 0)
		return fd;
	px_out(x, s->out, fd);
	x->substep = 1;
	long r = sys_ioctl((int)fd, TIOCSPTLCK, &unlock);
	if (r < 0)
		return r;
	x->substep = 2;
	r = px_out(x, s->in2, sc3(__NR_ioctl, fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
	if (r == 0 && s->a) {
		struct px_winsize w = { (u16)s->b, (u16)s->a, 0, 0 };
		x->substep = 3;
		r = sys_ioctl((int)fd, TIOCSWINSZ, &w);
	}
	return r;
}

/* in0 a connected unix socket, in1 the descriptor to hand over, s0 the message; a: offset of the pid in it (PX_NEXT: nowhere). */
long do_send_fd(struct px_ctx *x, const struct px_step *s)
{
	char *data = (char *)px_str(x, s->s0);
	if (px_room(s->a, 10, s->n0))
		patch_pid(data + s->a, (u64)x->pid, 0);
	if (px_room(s->b, 10, s->n0))
		patch_pid(data + s->b, (u64)x->pid, 0);
	struct px_iovec iov = { data, s->n0 };
	struct px_cmsg c = { sizeof(usize) + 12, SOL_SOCKET_, SCM_RIGHTS_, px_fd(x, s->in1), 0 };
	struct px_msghdr m = { .iov = &iov, .iovlen = 1, .control = &c, .controllen = sizeof c };
	long r;
	do
		r = sc3(__NR_sendmsg, px_fd(x, s->in0), &m, 0x4000 /* MSG_NOSIGNAL */);
	while (r == -EINTR);
	return r < 0 ? r : 0;
}

/* s0 the path of a unix stream socket. */
long do_connect(struct px_ctx *x, const struct px_step *s)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX_, .sun_path = "/proc/self/fd/" };
	long there = -1, r;
	if (s->n0 < sizeof a.sun_path) {
		for (u32 i = 0; i <= s->n0; i++)
			a.sun_path[i] = px_str(x, s->s0)[i];
	} else { /* longer than an address may be: through a descriptor of the socket's file */
		there = sys_openat(AT_FDCWD, px_str(x, s->s0), O_PATH | O_CLOEXEC, 0);
		if (there < 0)
			return there;
		px_num(a.sun_path + 14, (u64)there);
	}
	long fd = sc3(__NR_socket, AF_UNIX_, SOCK_STREAM_ | SOCK_CLOEXEC_, 0);
	if (fd < 0) {
		if (there >= 0)
			sys_close((int)there);
		return fd;
	}
	x->substep = 1;
	/* Where who listens does not accept: connect(2), and later a send, is then EAGAIN, not a wait for ever. */
	const struct px_timespec patience = { 10, 0 }; /* its layout is timeval's, too */
	sc5(__NR_setsockopt, fd, 1 /* SOL_SOCKET */, 21 /* SO_SNDTIMEO */, &patience, sizeof patience);
	r = sc3(__NR_connect, fd, &a, sizeof a);
	if (there >= 0)
		sys_close((int)there);
	if (r < 0) {
		sys_close((int)fd);
		return r;
	}
	return px_out(x, s->out, fd);
}

/* in0 a directory, s0 a name in it, a mode: a unix datagram socket. Its path goes through the directory's descriptor, as one may be 107 bytes long at most. */
long do_bind(struct px_ctx *x, const struct px_step *s)
{
	const int type = s->b ? SOCK_STREAM_ : SOCK_DGRAM_;
	struct sockaddr_un a = { .sun_family = AF_UNIX_, .sun_path = "/proc/self/fd/" };
	char *p = px_num(a.sun_path + 14, (u64)px_fd(x, s->in0));
	if (s->n0 > 64)
		return -ENAMETOOLONG;
	*p++ = '/';
	for (u32 i = 0; i <= s->n0; i++)
		p[i] = px_str(x, s->s0)[i];
	long r, fd = sc3(__NR_socket, AF_UNIX_, type | SOCK_CLOEXEC_, 0);
	if (fd < 0)
		return fd;
	x->substep = 1;
	r = sc3(__NR_bind, fd, &a, sizeof a);
	x->substep = 2;
	if (r == 0)
		r = sc4(__NR_fchmodat, px_fd(x, s->in0), px_str(x, s->s0), s->a, 0);
	if (r == 0 && s->b)
		r = sc2(__NR_listen, fd, 1);
	if (r < 0) {
		sys_close((int)fd);
		return r;
	}
	return px_out(x, s->out, fd);
}

/* in0 a listening socket, to which somebody has connected and sent one descriptor. A client that has done neither yet is not waited for. */
long do_receive_fd(struct px_ctx *x, const struct px_step *s)
{
	char word[256];
	struct px_iovec iov = { word, sizeof word };
	struct px_cmsg c = { 0 };
	struct px_msghdr m = { .iov = &iov, .iovlen = 1, .control = &c, .controllen = sizeof(usize) + 12 /* one */ };
	long r = sys_fcntl(px_fd(x, s->in0), F_SETFL, O_NONBLOCK);
	const long fd = r < 0 ? r : sc4(__NR_accept4, px_fd(x, s->in0), NULL, NULL, SOCK_CLOEXEC_ | O_NONBLOCK);
	if (fd < 0)
		return fd;
	x->substep = 1;
	do
		r = sc3(__NR_recvmsg, fd, &m, 0x40000000 /* MSG_CMSG_CLOEXEC */);
	while (r == -EINTR);
	sys_close((int)fd);
	if (r < 0)
		return r;
	return m.controllen >= sizeof(usize) + 12 && c.level == SOL_SOCKET_ && c.type == SCM_RIGHTS_ ? px_out(x, s->out, c.fd) : -EPROTO;
}

/* in0 a terminal, a: the output flags (c_oflag) that are cleared. */
long do_tty_output(struct px_ctx *x, const struct px_step *s)
{
	struct termios mode;
	long r = sys_ioctl(px_fd(x, s->in0), TCGETS, &mode);
	if (r < 0)
		return r;
	x->substep = 1;
	mode.c_oflag &= ~(tcflag_t)s->a;
	return sys_ioctl(px_fd(x, s->in0), TCSETS, &mode);
}

/* in0 becomes the controlling terminal and the three standard streams. */
long do_set_stdio(struct px_ctx *x, const struct px_step *s)
{
	int fd = px_fd(x, s->in0);
	long r = sys_ioctl(fd, TIOCSCTTY, NULL);
	for (int i = 0; i < 3 && r >= 0; i++) {
		x->substep = (u32)i + 1;
		r = sys_dup3(fd, i, 0);
	}
	return r;
}
