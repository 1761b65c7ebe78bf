/* Steps on files: open, make, write, remove, check. Every path that lies in a container's root is walked with openat2 below a descriptor. */
#include "steps.h"

#define STEP_PID_PREFIX 1u     /* the path is below /proc/PID: "PID/" is put in front */
#define STEP_PID_DATA 2u       /* the pid is what is written */

/* The step's first string, behind the container's pid where the step asks for it; NULL when that is too long for a path. */
static const char *pid_path(struct px_ctx *x, const struct px_step *s, char buf[4096])
{
	const char *p = px_path(x, s->s0);
	if (!(s->d & STEP_PID_PREFIX))
		return p;
	char *q = px_num(buf, (u64)(x->pid > 0 ? x->pid : x->stage1));
	*q++ = '/';
	if (s->n0 >= (usize)(buf + 4096 - q))
		return NULL;
	for (usize i = 0; i <= s->n0; i++)
		*q++ = p[i];
	return buf;
}

long do_openat2(struct px_ctx *x, const struct px_step *s)
{
	char buf[4096];
	const char *path = pid_path(x, s, buf);
	return path ? px_out(x, s->out, sys_openat2(px_fd(x, s->in0), path, s->a | O_CLOEXEC, s->b, s->c)) : -ENAMETOOLONG;
}

long do_mkdirat(struct px_ctx *x, const struct px_step *s)
{
	long r = sc3(__NR_mkdirat, px_fd(x, s->in0), px_str(x, s->s0), s->a);
	if (r == 0 && x->made)
		x->made[x->step] = 1;
	return r;
}

/* A node that is there already must be the one that was asked for; the image does not choose what /dev/null is. The node is made with
 * its mode, by umask 0, and given away by its own descriptor: chmod(2) by name would follow a symlink that took its place. */
long do_mknodat(struct px_ctx *x, const struct px_step *s)
{
	int dir = px_fd(x, s->in0);
	u64 major = s->b >> 32, minor = s->b & 0xffffffffu, uid = s->c & 0xffffffffu, gid = s->c >> 32;
	struct statx st;
	long mask = sc1(__NR_umask, 0), made = sc4(__NR_mknodat, dir, px_str(x, s->s0), s->a, px_dev(major, minor));
	sc1(__NR_umask, mask);
	if (made < 0 && made != -EEXIST)
		return made;
	x->substep = 1;
	long fd = sys_openat(dir, px_str(x, s->s0), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long r = sys_statx((int)fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st);
	if (r == 0 && ((st.stx_mode & S_IFMT) != (s->a & S_IFMT) || ((s->a & S_IFMT) != S_IFIFO && (st.stx_rdev_major != major || st.stx_rdev_minor != minor))))
		r = -EEXIST;
	if (r == 0 && made == 0 && (st.stx_uid != uid || st.stx_gid != gid)) {
		x->substep = 2;
		r = sc5(__NR_fchownat, fd, "", uid, gid, AT_EMPTY_PATH);
	}
	sys_close((int)fd);
	return r;
}

long do_symlinkat(struct px_ctx *x, const struct px_step *s)
{
	return sc3(__NR_symlinkat, px_str(x, s->s0), px_fd(x, s->in0), px_str(x, s->s1));
}

/* in1: a directory that must not have been removed: else what has the name now is another's. */
long do_unlinkat(struct px_ctx *x, const struct px_step *s)
{
	long r = px_linked(x, s->in1) ? sc3(__NR_unlinkat, px_fd(x, s->in0), px_str(x, s->s0), s->a) : 0;
	return r == -ENOTEMPTY && !px_linked(x, s->in1) ? 0 : r;
}

/* in0 directory, s0 path below it, s1 data in one write, a open flags, b file system magic that it must be on (0: any), c RESOLVE flags. */
long do_write_file(struct px_ctx *x, const struct px_step *s)
{
	char buf[4096], pid[PX_NUM];
	const char *path = pid_path(x, s, buf), *data = px_path(x, s->s1);
	usize len = s->n1;
	if (s->d & STEP_PID_DATA) {
		if (x->pid <= 0) /* 0 would be ourselves */
			return -ESRCH;
		len = (usize)(px_num(pid, (u64)x->pid) - pid);
		data = pid;
	}
	long fs[16], fd, r;
	if (!path)
		return -ENAMETOOLONG;
	fd = sys_openat2(px_fd(x, s->in0), path, s->a | O_WRONLY | O_CLOEXEC, 0, s->c);
	if (fd < 0)
		return fd;
	x->substep = 1;
	r = s->b ? sc2(__NR_fstatfs, fd, fs) : 0;
	if (r == 0 && s->b && (u64)fs[0] != s->b)
		r = -EXDEV;
	x->substep = 2;
	if (r == 0)
		do
			r = sys_write((int)fd, data, len);
		while (r == -EINTR);
	sys_close((int)fd);
	return r < 0 ? r : r == (long)len || s->b ? 0 : -EIO;
}

/* in0 directory, s0 name, s1 content, a mode, out: the open file. Made new; content is all of it or none. b: locked while it is open. */
long do_create_file(struct px_ctx *x, const struct px_step *s)
{
	long fd = sys_openat(px_fd(x, s->in0), px_str(x, s->s0), O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, (int)s->a), r;
	if (fd < 0)
		return fd;
	if (x->made)
		x->made[x->step] = 1;
	x->substep = 1;
	const struct px_flock whole = { .type = 1 /* F_WRLCK */ };
	r = s->b ? sys_fcntl((int)fd, 37 /* F_OFD_SETLK */, L(&whole)) : 0;
	if (r >= 0)
		r = px_write_all((int)fd, px_str(x, s->s1), s->n1);
	if (r < 0) {
		sys_close((int)fd);
		return r;
	}
	return px_out(x, s->out, fd);
}

long do_mkfifoat(struct px_ctx *x, const struct px_step *s)
{
	long r = sc4(__NR_mknodat, px_fd(x, s->in0), px_str(x, s->s0), S_IFIFO | s->a, 0);
	if (r < 0)
		return r;
	x->substep = 1;
	return px_out(x, s->out, sys_openat(px_fd(x, s->in0), px_str(x, s->s0), O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0));
}

/* in0 a directory, s0 a name in it or "" for itself; a its new owner, the group stays. */
long do_fchownat(struct px_ctx *x, const struct px_step *s)
{
	return sc5(__NR_fchownat, px_fd(x, s->in0), px_str(x, s->s0), s->a, 0xffffffffu, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
}

/* in0 a file or a mount, O_PATH or not, and so by its number; s0 the name, s1 the value. */
long do_setxattr(struct px_ctx *x, const struct px_step *s)
{
	char path[14 + PX_NUM] = "/proc/self/fd/";
	px_num(path + 14, (u64)px_fd(x, s->in0));
	return sc5(__NR_setxattr, path, px_str(x, s->s0), px_str(x, s->s1), s->n1, 0);
}

/* a: the S_IFMT type that in0 must have; ENOTDIR where a directory was wanted, EISDIR where not. b: the device that it must be, unless 0; ENODEV where not. */
long do_check_type(struct px_ctx *x, const struct px_step *s)
{
	struct statx st;
	long r = sys_statx(px_fd(x, s->in0), "", AT_EMPTY_PATH, STATX_TYPE, &st);
	if (r < 0)
		return r;
	if ((st.stx_mode & S_IFMT) == s->a)
		return !s->b || ((u64)st.stx_rdev_major << 32 | st.stx_rdev_minor) == s->b ? 0 : -ENODEV;
	return s->a == S_IFDIR ? -ENOTDIR : (st.stx_mode & S_IFMT) == S_IFDIR ? -EISDIR : -EINVAL;
}

/* in0 must be the character device a:b. */
long do_check_device(struct px_ctx *x, const struct px_step *s)
{
	struct statx st;
	long r = sys_statx(px_fd(x, s->in0), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st);
	if (r < 0)
		return r;
	return (st.stx_mode & S_IFMT) == S_IFCHR && st.stx_rdev_major == s->a && st.stx_rdev_minor == s->b ? 0 : -ENODEV;
}

/* in0 must be on the file system with magic a. */
long do_check_fs(struct px_ctx *x, const struct px_step *s)
{
	long fs[16], r = sc2(__NR_fstatfs, px_fd(x, s->in0), fs);
	if (r < 0)
		return r;
	return (u64)fs[0] == s->a ? 0 : -EXDEV;
}

/* in0 must be a namespace (ENOTTY) of kind a (EINVAL); with s0, not the one that path names below in1 (EBUSY). */
long do_check_ns(struct px_ctx *x, const struct px_step *s)
{
	struct statx mine, theirs;
	long r = sys_ioctl(px_fd(x, s->in0), NS_GET_NSTYPE, NULL);
	if (r < 0)
		return r;
	if ((u64)r != s->a)
		return -EINVAL;
	if (!s->n0)
		return 0;
	x->substep = 1;
	r = sys_statx(px_fd(x, s->in0), "", AT_EMPTY_PATH, STATX_INO, &theirs);
	if (r == 0)
		r = sys_statx(px_fd(x, s->in1), px_str(x, s->s0), 0, STATX_INO, &mine);
	return r < 0 ? r : mine.stx_ino == theirs.stx_ino ? -EBUSY : 0;
}
