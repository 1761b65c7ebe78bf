/* Steps on mounts: making and moving them, the place that one goes to, and what two kinds need beside: tmpcopyup a copy of what they hide,
 * idmapped ones a user namespace. A target is walked with openat2 below the container's root. */
#include "steps.h"

long do_open_tree(struct px_ctx *x, const struct px_step *s)
{
	return px_out(x, s->out, sc3(__NR_open_tree, px_fd(x, s->in0), px_path(x, s->s0), s->a | OPEN_TREE_CLOEXEC));
}

long do_move_mount(struct px_ctx *x, const struct px_step *s)
{
	struct statx from, onto;
	long r = sc5(__NR_move_mount, px_fd(x, s->in0), "", px_fd(x, s->in1), px_path(x, s->s0), s->a);
	/* A directory onto a file, or a file onto a directory: mount(2) says ENOTDIR, for which docker looks, and this call EINVAL. */
	if (r == -EINVAL && sys_statx(px_fd(x, s->in0), "", AT_EMPTY_PATH, STATX_TYPE, &from) == 0 &&
	    sys_statx(px_fd(x, s->in1), px_path(x, s->s0), AT_EMPTY_PATH, STATX_TYPE, &onto) == 0 &&
	    ((from.stx_mode & S_IFMT) == S_IFDIR) != ((onto.stx_mode & S_IFMT) == S_IFDIR))
		return -ENOTDIR;
	if (r == 0 && x->made)
		x->made[x->step] = 1;
	return r;
}

long do_mount_setattr(struct px_ctx *x, const struct px_step *s)
{
	struct mount_attr attr = { .attr_set = s->b, .attr_clr = s->c, .propagation = s->d };
	if (s->in1 != PX_NONE)
		attr.userns_fd = (u64)px_fd(x, s->in1);
	return sc5(__NR_mount_setattr, px_fd(x, s->in0), px_path(x, s->s0), s->a, &attr, sizeof attr);
}

long do_fsopen(struct px_ctx *x, const struct px_step *s)
{
	return px_out(x, s->out, sc2(__NR_fsopen, px_str(x, s->s0), 1 /* FSOPEN_CLOEXEC */));
}

/* The file system says in its own words what it did not like. */
static long fs_log(struct px_ctx *x, int fd, long r)
{
	char line[256];
	long n;
	while (r < 0 && (n = sys_read(fd, line, sizeof line)) > 0) {
		px_say(x, line, (usize)n);
		px_say(x, "\n", 1);
	}
	return r;
}

long do_fsconfig(struct px_ctx *x, const struct px_step *s)
{
	int fd = px_fd(x, s->in0), aux = s->in1 == PX_NONE ? (int)s->b : px_fd(x, s->in1);
	return fs_log(x, fd, sc5(__NR_fsconfig, fd, s->a, s->s0 ? px_str(x, s->s0) : NULL, s->s1 ? px_str(x, s->s1) : NULL, aux));
}

long do_fsmount(struct px_ctx *x, const struct px_step *s)
{
	int fd = px_fd(x, s->in0);
	return px_out(x, s->out, fs_log(x, fd, sc3(__NR_fsmount, fd, 1 /* FSMOUNT_CLOEXEC */, s->b)));
}

/* The text with each mark, \2 and four hexadecimal digits of a slot, as the number of the descriptor in it. */
static long with_marks(struct px_ctx *x, const char *p, u32 n, char *out, usize size)
{
	usize k = 0;
	for (u32 i = 0; i < n; i++) {
		if (k + PX_NUM >= size)
			return -E2BIG;
		if (p[i] != 2) {
			out[k++] = p[i];
			continue;
		}
		u32 slot = 0;
		if (n - i < 5)
			return -EINVAL;
		for (int d = 1; d < 5; d++) {
			char c = p[i + (u32)d];
			slot = slot << 4 | (u32)(c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= '0' && c <= '9' ? c - '0' : 16);
		}
		if (slot >= x->h->n_slots || x->slots[slot] < 0)
			return -EBADF;
		k = (usize)(px_num(out + k, (u64)x->slots[slot]) - out);
		i += 4;
	}
	out[k] = 0;
	return 0;
}

/* mount(2) on a descriptor's own path, for data that fsconfig does not take. b: the data has marks. */
long do_mount(struct px_ctx *x, const struct px_step *s)
{
	char path[40] = "/proc/self/fd/", buf[4096];
	const char *data = s->s2 ? px_str(x, s->s2) : NULL;
	px_num(path + 14, (u64)px_fd(x, s->in0));
	if (s->b && data) {
		long r = with_marks(x, data, s->n2, buf, sizeof buf);
		if (r < 0)
			return r;
		data = buf;
	}
	return sc5(__NR_mount, px_path(x, s->s1), path, s->s0 ? px_str(x, s->s0) : NULL, s->a, data);
}

static int is_dir(int fd)
{
	struct statx st;
	long r = sys_statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
	return r < 0 ? (int)r : (st.stx_mode & S_IFMT) == S_IFDIR;
}

/* Makes the last component of `path[0..end)` in `dir`, unless it is a symlink: then path is rewritten through it and 1 returned. */
static long make_one(int dir, char *path, usize start, usize end, int file, u64 mode)
{
	char link[4096], name[256];
	usize rest = px_len(path + end), n = end - start;
	if (n >= sizeof name)
		return -ENAMETOOLONG;
	for (usize i = 0; i < n; i++)
		name[i] = path[start + i];
	name[n] = 0;
	long k = sc4(__NR_readlinkat, dir, name, link, sizeof link - 1);
	if (k >= 0) {
		usize keep = link[0] == '/' ? 0 : start;
		if (keep + (usize)k + rest >= 4095)
			return -ENAMETOOLONG;
		for (usize i = 0; i <= rest; i++)
			link[(usize)k + i] = path[end + i];
		for (usize i = 0; i <= (usize)k + rest; i++)
			path[keep + i] = link[i];
		return 1;
	}
	if (!file)
		return sc3(__NR_mkdirat, dir, name, mode);
	long fd = sys_openat(dir, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, (int)(mode & 0666));
	return fd < 0 ? fd : sys_close((int)fd);
}

/* Walks `path` below root, making what is missing; a symlink that leads nowhere is followed by us, below root.
 * Everything made is made through the descriptor of its parent: a name that is exchanged meanwhile leads nowhere else. */
static long make_walk(struct px_ctx *x, int root, char *path, int file, u64 mode, u64 resolve)
{
	for (int links = 0; links < 40; links++) {
		long dir = sys_openat2(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, IN_ROOT), r = 0;
		usize i = 0;
		while (r == 0 && dir >= 0) {
			while (path[i] == '/')
				i++;
			if (!path[i])
				return dir;
			usize start = i;
			while (path[i] && path[i] != '/')
				i++;
			char end = path[i];
			path[i] = 0;
			x->substep++;
			long next = sys_openat2(root, path, O_PATH | O_CLOEXEC, 0, resolve);
			path[i] = end;
			if (next == -ENOENT) {
				usize j = i;
				while (path[j] == '/')
					j++;
				r = make_one((int)dir, path, start, i, file && !path[j], path[j] ? 0755 : mode);
				if (r == -EEXIST)
					r = 0;
				if (r == 0) {
					path[i] = 0;
					next = sys_openat2((int)dir, path + start, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_BENEATH);
					path[i] = end;
				}
			}
			sys_close((int)dir);
			if (r != 0)
				break;
			dir = next;
		}
		if (r < 0 || dir < 0)
			return r < 0 ? r : dir;
	}
	return -ELOOP;
}

/* Nothing is mounted on the root itself (whoever enters the namespace later would see that mount, and not what is below it) nor where b forbids. */
static long target_ok(int root, long fd, u64 magic)
{
	struct statx a, b;
	long fs[16], r = sys_statx((int)fd, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &a);
	if (r == 0)
		r = sys_statx(root, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &b);
	if (r == 0 && a.stx_ino == b.stx_ino && a.stx_mnt_id == b.stx_mnt_id)
		r = -EBUSY;
	if (r == 0 && magic && (r = sc2(__NR_fstatfs, fd, fs)) == 0 && (u64)fs[0] == magic)
		r = -EXDEV;
	return r;
}

/* in0 root, s0 path, in1 what will be mounted there (its type is the target's; none: a directory), a mode, c more RESOLVE flags, out O_PATH.
 * d: for a mount, so not the root itself, nor on a file system with magic b (0: any). */
long do_make_target(struct px_ctx *x, const struct px_step *s)
{
	char path[4096];
	const char *p = px_str(x, s->s0);
	u64 resolve = IN_ROOT | s->c;
	long r = sys_openat2(px_fd(x, s->in0), s->n0 ? p : ".", O_PATH | O_CLOEXEC, 0, resolve);
	x->fresh = 0;
	if (r == -ENOENT) {
		if (s->n0 >= sizeof path)
			return -ENAMETOOLONG;
		for (u32 i = 0; i <= s->n0; i++)
			path[i] = p[i];
		int dir = s->in1 == PX_NONE ? 1 : is_dir(px_fd(x, s->in1));
		if (dir < 0)
			return dir;
		r = make_walk(x, px_fd(x, s->in0), path, !dir, s->a, resolve);
		x->fresh = 1;
	}
	if (r >= 0 && s->d) {
		long ok = target_ok(px_fd(x, s->in0), r, s->b);
		if (ok < 0) {
			sys_close((int)r);
			return ok;
		}
	}
	return px_out(x, s->out, r);
}

/* in0 a tmpfs being configured, in1 the directory that it will hide: its mode, unless MAKE_TARGET has just made it (mount(2) has 1777 then). */
long do_tmpfs_mode(struct px_ctx *x, const struct px_step *s)
{
	struct statx st;
	char mode[8];
	if (x->fresh)
		return 0;
	long r = sys_statx(px_fd(x, s->in1), "", AT_EMPTY_PATH, STATX_MODE, &st);
	if (r < 0)
		return r;
	for (int i = 0; i < 5; i++)
		mode[i] = (char)('0' + (st.stx_mode >> (12 - 3 * i) & (i ? 7 : 0)));
	mode[5] = 0;
	x->substep = 1;
	return sc5(__NR_fsconfig, px_fd(x, s->in0), FSCONFIG_SET_STRING, "mode", mode, 0);
}

static long copy_file(int from, int to)
{
	char buf[4096];
	long n;
	while ((n = sys_read(from, buf, sizeof buf)) > 0) {
		long r = px_write_all(to, buf, (usize)n);
		if (r < 0)
			return r;
	}
	return n;
}

static long copy_entry(int from, int to, const char *name, int depth);

struct px_dirent { u64 ino; i64 off; u16 len; u8 type; char name[]; };

static long copy_dir(int from, int to, int depth)
{
	char buf[2048] __attribute__((aligned(8)));
	long n = 0, r = 0;
	while (r == 0 && (n = sc3(__NR_getdents64, from, buf, sizeof buf)) > 0)
		for (long i = 0; i < n && r == 0; i += ((struct px_dirent *)(buf + i))->len) {
			const char *name = ((struct px_dirent *)(buf + i))->name;
			if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])))
				continue;
			r = copy_entry(from, to, name, depth);
		}
	return r < 0 ? r : n;
}

/* One entry with its owner and mode. A device, which nothing may make in a user namespace, is EPERM there. */
static long copy_entry(int from, int to, const char *name, int depth)
{
	struct statx st;
	char link[4096];
	long a = -1, b = -1, r = sys_statx(from, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &st);
	if (r < 0 || depth > 64)
		return r < 0 ? r : -ELOOP;
	u16 type = st.stx_mode & S_IFMT;
	if (type == S_IFLNK) {
		r = sc4(__NR_readlinkat, from, name, link, sizeof link - 1);
		if (r < 0)
			return r;
		link[r] = 0;
		r = sc3(__NR_symlinkat, link, to, name);
		return r < 0 ? r : sc5(__NR_fchownat, to, name, st.stx_uid, st.stx_gid, AT_SYMLINK_NOFOLLOW);
	}
	if (type != S_IFDIR && type != S_IFREG) {
		r = sc4(__NR_mknodat, to, name, st.stx_mode, px_dev(st.stx_rdev_major, st.stx_rdev_minor));
		return r < 0 ? r : sc5(__NR_fchownat, to, name, st.stx_uid, st.stx_gid, AT_SYMLINK_NOFOLLOW);
	}
	if (type == S_IFDIR && (r = sc3(__NR_mkdirat, to, name, 0700)) < 0)
		return r;
	int flags = type == S_IFDIR ? O_RDONLY | O_DIRECTORY : O_WRONLY | O_CREAT | O_EXCL;
	a = sys_openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
	b = a < 0 ? a : sys_openat(to, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (b >= 0)
		r = type == S_IFDIR ? copy_dir((int)a, (int)b, depth + 1) : copy_file((int)a, (int)b);
	else
		r = b;
	if (r == 0)
		r = sc5(__NR_fchownat, (int)b, "", st.stx_uid, st.stx_gid, AT_EMPTY_PATH);
	if (r == 0)
		r = sc2(__NR_fchmod, (int)b, st.stx_mode & 07777);
	if (a >= 0)
		sys_close((int)a);
	if (b >= 0)
		sys_close((int)b);
	return r;
}

/* tmpcopyup: in0 the directory that the mount will hide (O_PATH), in1 the root of the new mount. One that MAKE_TARGET has just made has no
 * mode or owner to hand on. */
long do_copy_up(struct px_ctx *x, const struct px_step *s)
{
	struct statx st;
	long from = sys_openat(px_fd(x, s->in0), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), to, r;
	if (from < 0)
		return from == -ENOTDIR ? 0 : from;
	to = sys_openat(px_fd(x, s->in1), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	r = to < 0 ? to : copy_dir((int)from, (int)to, 0);
	if (r == 0 && !s->a && !x->fresh && (r = sys_statx((int)from, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st)) == 0) {
		r = sc2(__NR_fchmod, (int)to, st.stx_mode & 07777);
		if (r == 0)
			r = sc3(__NR_fchown, (int)to, st.stx_uid, st.stx_gid);
	}
	sys_close((int)from);
	if (to >= 0)
		sys_close((int)to);
	return r;
}

static int PX_CHILD until_killed(void *parent)
{
	sys_prctl(PR_SET_PDEATHSIG, PX_SIGKILL, 0, 0, 0);
	if (sc0(__NR_getppid) != *(long *)parent) /* it died before we said so */
		return 0;
	for (;;)
		sys_poll(NULL, 0, -1);
}

static long write_map(int proc, i32 pid, const char *file, const char *map, usize n)
{
	char path[40], *q = px_num(path, (u64)pid);
	for (usize i = 0; i <= px_len(file); i++)
		q[i] = file[i];
	long fd = sys_openat(proc, path, map ? O_WRONLY | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0), r;
	if (fd < 0 || !map)
		return fd;
	r = sys_write((int)fd, map, n); /* all of it in one write, says the kernel */
	sys_close((int)fd);
	return r < 0 ? r : 0;
}

/* A user namespace that lives by its descriptor alone: in0 the host's /proc, s0 and s1 its maps, out. It takes a process to make one, which
 * shares our memory so that nothing is copied, and is gone when we return, or when we die. */
long do_make_userns(struct px_ctx *x, const struct px_step *s)
{
	u64 all = ~0ULL, old;
	i32 pidfd = -1;
	int proc = px_fd(x, s->in0);
	usize size = 16384;
	long stack = sys_mmap(NULL, size, 3, 0x20022, -1), self = sc0(__NR_getpid), r;
	if (stack < 0 && stack > -4096)
		return stack;
	struct clone_args args = { .flags = CLONE_VM | CLONE_PIDFD | CLONE_NEWUSER, .pidfd = (u64)(usize)&pidfd, .exit_signal = PX_SIGCHLD,
				   .stack = (u64)stack, .stack_size = size };
	sys_sigmask(&all, &old);
	long pid = clone3_call(&args, sizeof args, until_killed, &self);
	sys_sigmask(&old, NULL);
	r = pid;
	if (pid > 0) {
		x->substep = 1;
		r = write_map(proc, (i32)pid, "/uid_map", px_str(x, s->s0), s->n0);
		x->substep = r < 0 ? 1 : 2;
		if (r == 0)
			r = write_map(proc, (i32)pid, "/gid_map", px_str(x, s->s1), s->n1);
		if (r == 0) {
			x->substep = 3;
			r = px_out(x, s->out, write_map(proc, (i32)pid, "/ns/user", NULL, 0));
		}
		sys_pidfd_send_signal(pidfd, PX_SIGKILL);
		sys_close(pidfd);
		while (sys_wait4((int)pid, NULL, 0x40000000 /* __WALL */) == -EINTR)
			;
	}
	sys_munmap((void *)stack, size);
	return r;
}
