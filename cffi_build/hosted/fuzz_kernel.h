/* The lying kernel of fuzz.c. It is included there once, behind the sources of the executor. */
#ifndef PYRUN_FUZZ_KERNEL_H
#define PYRUN_FUZZ_KERNEL_H

typedef long jmp[64];
int _setjmp(jmp) __attribute__((returns_twice));
void longjmp(jmp, int) __attribute__((noreturn));
#define setjmp(where) _setjmp(where)
void *calloc(usize, usize);
void free(void *);
void abort(void) __attribute__((noreturn));
int dprintf(int, const char *, ...);

#define MAX_FDS 8192
#define MAX_MAPS 512
#define MAX_CALLS 20000

static struct {
	const u8 *at;             /* what is left of the input */
	usize left;
	u8 open[MAX_FDS];
	long open_by[MAX_FDS];    /* the call that opened it */
	void *map[MAX_MAPS];
	int maps, calls, in_child;
	const u8 *plan;           /* what plan_fd has */
	u32 plan_len;
	int plan_fd;
	i64 now;
	jmp exit, child;
} kernel;

static volatile u8 sink;

/* fuzz.c: what the running step hopes for. */
static long honest_message(void *to, u64 n);
static i32 honest_sender(void);
static void honest_statx(struct statx *st);
static u64 honest_magic(void);

static void __attribute__((noreturn)) die(const char *what, long number)
{
	dprintf(2, "fuzz: %s (%ld)\n", what, number);
	abort();
}

static u8 take(void)
{
	return kernel.left ? (kernel.left--, *kernel.at++) : 0;
}

static void kernel_reads(const void *p, u64 n)
{
	for (u64 i = 0; i < n; i++)
		sink = ((const volatile u8 *)p)[i];
}

static void kernel_copies(void *to, const void *from, usize n)
{
	for (usize i = 0; i < n; i++)
		((volatile u8 *)to)[i] = ((const u8 *)from)[i];
}

/* getname(): up to its NUL, or PATH_MAX bytes. */
static void reads_path(long p)
{
	for (int i = 0; p && i < 4096; i++) {
		sink = ((const volatile u8 *)p)[i];
		if (!sink)
			return;
	}
}

static void reads_vector(long v)
{
	for (char *const *p = (char *const *)v; p && *p; p++)
		kernel_reads(*p, px_len(*p) + 1);
}

/* Bytes of the input, then zeros. */
static void fills(void *p, u64 n)
{
	for (u64 i = 0; i < n; i++)
		((volatile u8 *)p)[i] = take();
}

static u8 *fresh(usize n)
{
	if (kernel.maps == MAX_MAPS)
		longjmp(kernel.exit, 1);
	void *p = calloc(1, n ? n : 1);
	if (!p)
		longjmp(kernel.exit, 1);
	return kernel.map[kernel.maps++] = p;
}

static long forget(void *p)
{
	for (int i = 0; i < kernel.maps; i++)
		if (kernel.map[i] == p) {
			free(p);
			kernel.map[i] = kernel.map[--kernel.maps];
			return 0;
		}
	die("munmap of what is not mapped", 0);
}

static void forget_all(void)
{
	while (kernel.maps)
		free(kernel.map[--kernel.maps]);
}

static void reset(const u8 *data, usize size)
{
	kernel.at = data;
	kernel.left = 0;
	(void)size;
	for (int i = 0; i < MAX_FDS; i++)
		kernel.open[i] = 0;
	kernel.calls = kernel.in_child = 0;
	kernel.plan_fd = -1;
	kernel.now = 1;
}

static int is_open(long fd) { return fd >= 0 && fd < MAX_FDS && kernel.open[fd]; }

static long opens(long by, long from)
{
	for (long fd = from < 3 ? 3 : from; fd < MAX_FDS; fd++)
		if (!kernel.open[fd]) {
			kernel.open[fd] = 1;
			kernel.open_by[fd] = by;
			return fd;
		}
	return -EMFILE;
}

static long closes(long fd)
{
	if (fd < 0)
		return -EBADF;
	if (!is_open(fd))
		die("close of what is not open", fd);
	kernel.open[fd] = 0;
	if (fd == kernel.plan_fd)
		kernel.plan_fd = -1;
	return 0;
}

static long some_error(u8 b)
{
	static const u8 errors[] = { EPERM, ENOENT, ESRCH, EINTR, EIO, ENOEXEC, EBADF, EAGAIN, ENOMEM, EACCES, EBUSY, EEXIST, EXDEV, ENODEV,
				     ENOTDIR, EISDIR, EINVAL, EMFILE, ENOSPC, EROFS, EPIPE, ERANGE, ENAMETOOLONG, ELOOP, ENODATA, ETIMEDOUT };
	return b < 100 ? -ENOENT : -(long)errors[b % sizeof errors]; /* the one that steps go on after */
}

/* Bytes that came: of a message, a file, a pipe. */
static long some_bytes(void *p, u64 n)
{
	u64 want = take();
	want = want >= 0xf0 ? n : want * 64;
	want = want > n ? n : want;
	want = want > kernel.left ? kernel.left : want;
	fills(p, want);
	return (long)want;
}

static long some_dirents(u8 *buf, u64 n)
{
	u64 at = 0;
	for (int count = take() & 7; count && kernel.left; count--) {
		u8 len = take() % 24;
		u64 size = (19u + len + 1 + 7) & ~7u;
		if (at + size > n)
			break;
		for (u64 i = 0; i < size; i++)
			buf[at + i] = 0;
		*(u16 *)(void *)(buf + at + 16) = (u16)size;
		buf[at + 18] = take() & 1 ? 4 : 8;
		for (u8 i = 0; i < len; i++)
			buf[at + 19 + i] = "ab./.x"[take() % 6];
		at += size;
	}
	return (long)at;
}

static long some_statx(struct statx *st)
{
	static const u16 types[] = { S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFIFO };
	for (usize i = 0; i < sizeof *st; i++)
		((volatile u8 *)st)[i] = 0;
	if (!kernel.left || take() < 128) {
		honest_statx(st);
		return 0;
	}
	st->stx_mode = types[take() % 5] | (u16)(take() << 4);
	st->stx_ino = take();
	st->stx_rdev_major = take();
	st->stx_rdev_minor = take();
	return 0;
}

static long polls(struct pollfd *p, u64 n)
{
	long ready = 0;
	for (u64 i = 0; i < n; i++) {
		p[i].revents = 0;
		if (p[i].fd < 0)
			continue;
		if (!is_open(p[i].fd))
			p[i].revents = POLLNVAL;
		else if (!kernel.left || take() & 1)
			p[i].revents = (short)(p[i].events | POLLHUP);
		ready += p[i].revents != 0;
	}
	return ready;
}

/* Calls that need more than their paths read. */
static long answers(long n, long a, long b, long c, long d, long e)
{
	switch (n) {
	case __NR_read:
		if (!is_open(a))
			return -EBADF;
		return (c == 4 || c == sizeof(struct px_msg)) && (!kernel.left || take() & 1) ? honest_message((void *)b, (u64)c) : some_bytes((void *)b, (u64)c);
	case __NR_recvmsg: {
		const struct px_msghdr *m = (void *)b;
		struct px_ucred_cmsg from = { .type = SCM_CREDENTIALS_, .pid = !kernel.left || take() & 1 ? honest_sender() : 78 };
		kernel_copies(m->control, &from, m->controllen < sizeof from ? m->controllen : sizeof from);
		return is_open(a) ? some_bytes(m->iov->base, m->iov->len) : -EBADF;
	}
	case __NR_write: case __NR_sendto: case __NR_pwrite64:
		kernel_reads((void *)b, (u64)c);
		return is_open(a) || (a >= 0 && a < 3) ? c : -EBADF;
	case __NR_sendmsg: {
		const struct px_msghdr *m = (void *)b;
		for (usize i = 0; i < m->iovlen; i++)
			kernel_reads(m->iov[i].base, m->iov[i].len);
		kernel_reads(m->control, m->controllen);
		return 1;
	}
	case __NR_openat: case __NR_openat2: case __NR_open_tree: case __NR_fsopen: case __NR_fsmount: case __NR_memfd_create: case __NR_socket:
	case __NR_pidfd_open: case __NR_pidfd_getfd: case __NR_accept4:
		return opens(n, 3);
	case __NR_statx:
		some_statx((void *)e);
		if (a == kernel.plan_fd && a >= 0)
			((struct statx *)e)->stx_size = kernel.plan_len;
		return 0;
	case __NR_readlinkat: return some_bytes((void *)c, (u64)d);
	case __NR_getdents64: return is_open(a) ? some_dirents((void *)b, (u64)c) : -EBADF;
	case __NR_fstatfs:
		fills((void *)b, 120);
		if (!kernel.left || take() < 128)
			*(u64 *)b = honest_magic();
		return is_open(a) ? 0 : -EBADF;
	case __NR_getcwd: kernel_copies((void *)a, take() & 1 ? "(unreachable)/" : "/", 2); return 2;
	case __NR_pipe2: ((int *)a)[0] = (int)opens(n, 3); ((int *)a)[1] = (int)opens(n, 3); return 0;
	case __NR_socketpair: ((int *)d)[0] = (int)opens(n, 3); ((int *)d)[1] = (int)opens(n, 3); return 0;
	case __NR_fcntl: return b == F_DUPFD_CLOEXEC ? is_open(a) ? opens(n, c) : -EBADF : 0;
	case __NR_dup3:
		if (!is_open(a) || b < 0 || b >= MAX_FDS || a == b)
			return -EBADF;
		kernel.open[b] = kernel.in_child || b >= 3;
		return b;
	case __NR_clone3: return take() & 1 ? 77 : 0;
	case __NR_waitid: return take() & 1 ? 0 : -ECHILD;
	case __NR_wait4: if (b) *(int *)b = take() & 1 ? take() << 8 : take() & 0x7f; return a;
	case __NR_clock_gettime: ((struct px_timespec *)b)->sec = kernel.now++; ((struct px_timespec *)b)->nsec = 0; return 0;
	case __NR_ppoll: return a ? polls((void *)a, (u64)b) : 0;
	case __NR_rt_sigaction: if (c) fills((void *)b, 0), fills((void *)c, sizeof(struct px_sigaction)); return 0;
	case __NR_rt_sigprocmask: if (c) *(u64 *)c = 0; return 0;
	case __NR_prlimit64: if (c) kernel_reads((void *)c, 16); if (d) fills((void *)d, 16); return 0;
	case __NR_ioctl: return (unsigned long)b == TIOCGPTPEER ? opens(n, 3) : 0;
	case __NR_bpf: kernel_reads((void *)b, (u64)c);
		if (a == BPF_PROG_LOAD)
			kernel_reads((void *)(usize)((union bpf_attr *)b)->insns, ((union bpf_attr *)b)->insn_cnt * 8ul);
		return a == BPF_PROG_LOAD ? opens(n, 3) : 0;
	case __NR_seccomp: { const struct { u16 len; const void *filter; } *prog = (void *)c; kernel_reads(prog->filter, prog->len * 8ul); return 0; }
	case __NR_mount_setattr: kernel_reads((void *)d, (u64)e); return 0;
	case __NR_fsconfig: reads_path(c); if (b == FSCONFIG_SET_BINARY) { if (d && e > 0 && e < 64) sink = 0; } else reads_path(d); return 0;
	case __NR_setgroups: kernel_reads((void *)b, (u64)a * 4); return 0;
	case __NR_sethostname: case __NR_setdomainname: kernel_reads((void *)a, (u64)b); return 0;
	case __NR_bind: case __NR_connect: kernel_reads((void *)b, (u64)c); return 0;
	case __NR_getpid: case __NR_getppid: return 100;
	default: return 0;
	}
}

/* Which arguments of a call are paths. */
static int paths_of(long n)
{
	switch (n) {
	case __NR_openat: case __NR_openat2: case __NR_open_tree: case __NR_statx: case __NR_mkdirat: case __NR_mknodat: case __NR_unlinkat:
	case __NR_fchownat: case __NR_faccessat2: case __NR_readlinkat: case __NR_mount_setattr: case __NR_fchmodat: return 1 << 1;
	case __NR_fsopen: case __NR_chdir: case __NR_chroot: case __NR_umount2: case __NR_memfd_create: return 1;
	case __NR_move_mount: case __NR_renameat2: return 1 << 1 | 1 << 3;
	case __NR_symlinkat: return 1 | 1 << 2;
	case __NR_mount: return 7;
	case __NR_pivot_root: return 3;
	default: return 0;
	}
}

static long maps(long n, long fd)
{
	u8 *p = fresh((usize)n);
	if (fd >= 0 && fd == kernel.plan_fd)
		kernel_copies(p, kernel.plan, kernel.plan_len);
	return (long)p;
}

long sc6(long n, long a, long b, long c, long d, long e, long f)
{
	const long args[] = { a, b, c, d, e, f };
	int paths = paths_of(n);
	if (n == __NR_exit_group || ++kernel.calls > MAX_CALLS)
		longjmp(kernel.exit, 1);
	if (n == __NR_close)
		return closes(a);
	if (n == __NR_munmap)
		return forget((void *)a);
	if (n == __NR_getdents64 && !is_open(a))
		return -EBADF;
	for (int i = 0; i < 6; i++)
		if (paths >> i & 1)
			reads_path(args[i]);
	if (n == __NR_execveat || n == __NR_execve) {
		int shift = n == __NR_execveat;
		reads_path(args[shift]);
		reads_vector(args[shift + 1]);
		reads_vector(args[shift + 2]);
	}
	u8 luck = n == __NR_clock_gettime ? 255 : take();
	if (kernel.left && luck < 24)
		return some_error(take());
	if (n == __NR_execveat || n == __NR_execve)
		longjmp(kernel.in_child ? kernel.child : kernel.exit, 1);
	return n == __NR_mmap ? maps(b, e) : answers(n, a, b, c, d, e);
}

/* A vfork child runs to its exec or its end, with descriptors of its own. */
long clone_call(long nr, long a, long b, long c, int (*fn)(void *), void *arg)
{
	static u8 keep[MAX_FDS];
	const struct clone_args *args = (void *)a;
	u64 flags = nr == __NR_clone3 ? args->flags : (u64)a;
	i32 *out = nr == __NR_clone3 ? (i32 *)(usize)args->pidfd : (i32 *)c;
	if (nr == __NR_clone3)
		kernel_reads(args, (u64)b);
	if (take() == 1)
		return some_error(take());
	long pidfd = opens(__NR_clone3, 3);
	*out = (i32)pidfd;
	if (!(flags & CLONE_VFORK))
		return 55;
	kernel_copies(keep, kernel.open, sizeof keep);
	kernel.in_child = 1;
	if (!setjmp(kernel.child))
		fn(arg);
	kernel.in_child = 0;
	kernel_copies(kernel.open, keep, sizeof keep);
	return 55;
}

#endif
