/* Steps on the process itself: identity, privileges, limits, and the exec that ends a lane. */
#include "steps.h"

long do_setres(struct px_ctx *x, const struct px_step *s)
{
	if (s->op == OP_SETGROUPS)
		return sc2(__NR_setgroups, s->n0 / 4, s->n0 ? px_str(x, s->s0) : NULL);
	return sc3(s->op == OP_SETRESUID ? __NR_setresuid : __NR_setresgid, s->a, s->a, s->a);
}

/* Drops every capability from the bounding set that mask a does not name. */
long do_capbset(struct px_ctx *x, const struct px_step *s)
{
	for (long cap = 0; cap < 64; cap++) {
		x->substep = (u32)cap;
		if (s->a >> cap & 1)
			continue;
		long r = sys_prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
		if (r == -EINVAL)
			return 0; /* past the kernel's last one */
		if (r == 1 && (r = sys_prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)) < 0)
			return r;
	}
	return 0;
}

/* a effective, b permitted, c inheritable. */
long do_capset(struct px_ctx *x, const struct px_step *s)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0 };
	struct __user_cap_data_struct data[2] = { { (u32)s->a, (u32)s->b, (u32)s->c }, { (u32)(s->a >> 32), (u32)(s->b >> 32), (u32)(s->c >> 32) } };
	(void)x;
	return sc2(__NR_capset, &head, data);
}

long do_ambient(struct px_ctx *x, const struct px_step *s)
{
	long r = sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (long cap = 0; cap < 64 && r >= 0; cap++) {
		x->substep = (u32)cap;
		if (s->a >> cap & 1)
			r = sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
	}
	return r;
}

/* s0 the filter, a flags. With a listener, the number it will get is told to the parent before the filter can notify on the telling. */
long do_seccomp(struct px_ctx *x, const struct px_step *s)
{
	struct { u16 len; u16 pad[3]; const void *filter; } prog = { (u16)(s->n0 / 8), { 0 }, px_str(x, s->s0) };
	long r, fd = -1;
	u8 ack[4];
	if (s->n0 / 8 > 4096) /* BPF_MAXINSNS: a longer one must not pass as its own beginning */
		return -EINVAL;
	if (s->a & SECCOMP_FILTER_FLAG_NEW_LISTENER) {
		/* It will get the lowest free number, as this one does. */
		x->substep = 1;
		fd = sys_fcntl(x->sync, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return fd;
		sys_close((int)fd);
		if ((r = px_send_msg(x, MSG_MEET, -1, (u32)fd)) < 0)
			return r;
		if (sys_read(x->sync, ack, 4) <= 0)
			return -EPIPE;
	}
	x->substep = 2;
	r = sc3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, s->a, &prog);
	if (r >= 0 && fd >= 0 && r != fd)
		return -EBADF;
	x->listener = r < 0 ? -1 : (i32)fd;
	return r;
}

/* a resource, b soft, c hard. With d only the hard limit is raised, and only if it is lower: the soft one stays as it is. */
long do_setrlimit(struct px_ctx *x, const struct px_step *s)
{
	u64 now[2], want[2] = { s->b, s->c };
	(void)x;
	if (s->d) {
		long r = sc4(__NR_prlimit64, 0, s->a, NULL, now);
		if (r < 0 || now[1] >= s->c)
			return r;
		want[0] = now[0];
	}
	return sc4(__NR_prlimit64, 0, s->a, want, NULL);
}

static long try_exec(struct px_ctx *x, const char *dir, usize dn, const char *name, usize nn)
{
	struct statx st;
	usize n = 0;
	if (dn + nn + 2 > sizeof x->exec_path)
		return -ENAMETOOLONG;
	for (usize i = 0; i < dn; i++)
		x->exec_path[n++] = dir[i];
	if (dn)
		x->exec_path[n++] = '/';
	for (usize i = 0; i <= nn; i++)
		x->exec_path[n++] = name[i];
	long r = sys_statx(AT_FDCWD, x->exec_path, 0, STATX_TYPE | STATX_MODE, &st);
	if (r < 0)
		return r;
	if ((st.stx_mode & S_IFMT) == S_IFDIR)
		return -EISDIR;
	return sc4(__NR_faccessat2, AT_FDCWD, x->exec_path, 1 /* X_OK */, AT_EACCESS);
}

/* Keeps what was met for EXECVE to fail with: what came first counts. */
long px_late(struct px_ctx *x, long r, u32 substep)
{
	if (r < 0 && !x->late) {
		x->late = r;
		x->late_substep = substep;
	}
	return 0;
}

static long find_executable(struct px_ctx *x, const struct px_step *s)
{
	const char *name = px_str(x, s->s0), *path = px_path(x, s->s1);
	for (u32 i = 0; i < s->n0; i++)
		if (name[i] == '/')
			return try_exec(x, "", 0, name, s->n0);
	long worst = -ENOENT;
	for (u32 i = 0; s->n1; i++) {
		u32 start = i;
		while (i < s->n1 && path[i] != ':')
			i++;
		long r = i == start ? try_exec(x, ".", 1, name, s->n0) : try_exec(x, path + start, i - start, name, s->n0);
		if (r == 0)
			return 0;
		if (r == -EACCES)
			worst = r;
		if (i >= s->n1)
			break;
	}
	return worst;
}

/* s0 the program's name, s1 the PATH; a: late. Keeps the file found for EXECVE. ENOENT where there is none; EACCES where one may not be run. */
long do_find_executable(struct px_ctx *x, const struct px_step *s)
{
	long r = find_executable(x, s);
	return s->a ? px_late(x, r, 2) : r;
}

/* Field `want` (from 0) of the passwd line at p. */
static const char *field(const char *p, const char *end, int want, usize *len)
{
	for (; want && p < end; p++)
		if (*p == ':')
			want--;
	const char *q = p;
	while (q < end && *q != ':')
		q++;
	*len = (usize)(q - p);
	return p;
}

static int match_home(struct px_ctx *x, const char *p, const char *end, u64 uid)
{
	usize n, m;
	const char *f = field(p, end, 2, &n), *home = field(p, end, 5, &m);
	u64 v = 0;
	for (usize i = 0; i < n; i++) {
		if (f[i] < '0' || f[i] > '9' || v > 0xffffffffu)
			return 0;
		v = v * 10 + (u64)(f[i] - '0');
	}
	if (n == 0 || v != uid || m == 0 || m + 6 > sizeof x->home)
		return 0;
	for (usize i = 0; i < m; i++)
		x->home[5 + i] = home[i];
	x->home[5 + m] = 0;
	return 1;
}

/* HOME from the container's own /etc/passwd for uid a; "/" where it does not say. Never blocks, whatever that file is. */
long do_set_home(struct px_ctx *x, const struct px_step *s)
{
	char buf[4096];
	struct statx st;
	usize have = 0;
	int skip = 0;          /* we are in a line that is longer than the buffer: it names nobody */
	const char *init = "HOME=/";
	for (int i = 0; i < 7; i++)
		x->home[i] = init[i];
	long fd = sys_openat2(AT_FDCWD, "/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
	if (fd < 0)
		return 0;
	if (sys_statx((int)fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) == 0 && (st.stx_mode & S_IFMT) == S_IFREG)
		for (int reads = 0; reads < 4096; reads++) { /* a sparse file can be endless */
			long n = sys_read((int)fd, buf + have, sizeof buf - have);
			usize start = 0, end = have + (usize)(n > 0 ? n : 0);
			for (usize i = 0; i < end; i++)
				if (buf[i] == '\n') {
					if (!skip && match_home(x, buf + start, buf + i, s->a))
						goto out;
					skip = 0;
					start = i + 1;
				}
			if (n <= 0) {
				if (!skip)
					match_home(x, buf + start, buf + end, s->a);
				break;
			}
			skip |= start == 0 && end == sizeof buf;
			have = skip ? 0 : end - start;
			for (usize i = 0; i < have; i++)
				buf[i] = buf[start + i];
		}
out:
	sys_close((int)fd);
	return 0;
}

/* s0 arguments and s1 environment, each string ended by NUL; a and b their counts. The arrays were made when the lane began: behind seccomp
 * this must be one system call. HOME joins where SET_HOME found one. */
long do_execve(struct px_ctx *x, const struct px_step *s)
{
	(void)s;
	if (!x->argv || !x->envp)
		return -ENOMEM;
	x->substep = x->late_substep;
	if (x->late)
		return x->late;
	if (x->home[0])
		x->envp[x->envc] = x->home;
	return sc3(__NR_execve, x->exec_path, x->argv, x->envp); /* not execveat, which fewer profiles allow */
}

/* Gives the standard streams to uid a, but for /dev/null and what may not change hands (pipes of an engine, read-only files). */
long do_fchown_stdio(struct px_ctx *x, const struct px_step *s)
{
	for (int fd = 0; fd < 3; fd++) {
		struct statx st;
		x->substep = (u32)fd;
		long r = sys_statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st);
		if (r == -EBADF)
			continue;
		if (r < 0)
			return r;
		if (st.stx_uid == s->a || (st.stx_rdev_major == 1 && st.stx_rdev_minor == 3 && (st.stx_mode & S_IFMT) == S_IFCHR))
			continue;
		r = sc3(__NR_fchown, fd, s->a, st.stx_gid);
		if (r < 0 && r != -EINVAL && r != -EPERM && r != -EROFS)
			return r;
	}
	return 0;
}

/* Closes what the slots hold, but for in0 and in1, and not only at the exec: a program, its interpreter or a hook may be a symlink of the
 * image's through /proc/self/fd, which the kernel follows before it closes anything (CVE-2024-21626). */
long do_close_fds(struct px_ctx *x, const struct px_step *s)
{
	for (u32 i = 0; i < x->h->n_slots; i++)
		if (i != s->in0 && i != s->in1 && x->slots[i] >= 0) {
			sys_close(x->slots[i]);
			x->slots[i] = -1;
		}
	return sys_close_range((u32)x->keep, ~0u, CLOSE_RANGE_CLOEXEC);
}
