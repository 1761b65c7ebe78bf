/* Steps that change what "/" and "." are. */
#include "steps.h"

/* In a chroot our "/" is not the mount namespace's own, and pivot_root(2) would leave the host's tree above the container: a chroot(2)
 * would lead out of it, and exec's setns(2) into it. Joining the namespace that we are in goes up there. But where the new root lies on
 * "/", its way ends in that: then back, as we were in no chroot. Who may not do this can't be led out either, without CAP_SYS_CHROOT.
 * Returns the old root, open. */
static long open_top(int root)
{
	struct statx top, new;
	long old = sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0), self, r;
	if (old < 0 || (self = sys_pidfd_open((int)sc0(__NR_getpid))) < 0)
		return old;
	r = sc2(__NR_setns, self, CLONE_NEWNS);
	sys_close((int)self);
	if (r < 0)
		return old;
	if ((r = sys_statx(AT_FDCWD, "/", 0, STATX_MNT_ID, &top)) == 0 && (r = sys_statx(root, "", AT_EMPTY_PATH, STATX_MNT_ID, &new)) == 0) {
		if (top.stx_mnt_id == new.stx_mnt_id) {
			if ((r = sc1(__NR_fchdir, old)) == 0 && (r = sc1(__NR_chroot, ".")) == 0)
				return old;
		} else {
			sys_close((int)old);
			return sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
		}
	}
	sys_close((int)old);
	return r;
}

/* in0: the new root, already a mount point. The old root is stacked on it and let go (pivot_root(2), NOTES). "." is the old root only
 * for who has gone there: mount_setattr(2) does not step up to a mount that covers it, and would make slaves of the container's mounts. */
long do_pivot_root(struct px_ctx *x, const struct px_step *s)
{
	struct mount_attr attr = { .propagation = 1u << 19 /* MS_SLAVE: the umount must not reach the host */ };
	long old = open_top(px_fd(x, s->in0)), r;
	if (old < 0)
		return old;
	if ((r = sc1(__NR_fchdir, px_fd(x, s->in0))) == 0) {
		x->substep = 1;
		r = sc2(__NR_pivot_root, ".", ".");
	}
	if (r == 0) {
		x->substep = 2;
		r = sc1(__NR_fchdir, old);
	}
	sys_close((int)old);
	if (r < 0)
		return r;
	x->substep = 3;
	if ((r = sc5(__NR_mount_setattr, AT_FDCWD, ".", AT_RECURSIVE, &attr, sizeof attr)) < 0)
		return r;
	x->substep = 4;
	if ((r = sc2(__NR_umount2, ".", MNT_DETACH_)) < 0)
		return r;
	x->substep = 5;
	return sc1(__NR_chdir, "/");
}

/* s0 the path, a flags; or in0 the mount itself, in a child only, as its working directory is there then. */
long do_umount(struct px_ctx *x, const struct px_step *s)
{
	if (s->in0 == PX_NONE)
		return sc2(__NR_umount2, px_str(x, s->s0), s->a);
	const long r = sc1(__NR_fchdir, px_fd(x, s->in0));
	x->substep = 1;
	return r < 0 ? r : sc2(__NR_umount2, ".", s->a);
}

/* in0: the new root of a container that has the host's mount namespace. */
long do_chroot(struct px_ctx *x, const struct px_step *s)
{
	long r;
	if ((r = sc1(__NR_fchdir, px_fd(x, s->in0))) < 0)
		return r;
	x->substep = 1;
	if ((r = sc1(__NR_chroot, ".")) < 0)
		return r;
	x->substep = 2;
	return sc1(__NR_chdir, "/");
}

/* The directory must lie in our root: getcwd says "(unreachable)" of one that came in through a leaked descriptor (CVE-2024-21626). */
long do_chdir(struct px_ctx *x, const struct px_step *s)
{
	char buf[4096];
	if (s->a && x->in_cwd)
		return 0;
	long r = sc1(__NR_chdir, px_str(x, s->s0));
	if (r < 0)
		return s->b ? px_late(x, r, 1) : r;
	x->substep = 1;
	r = sc2(__NR_getcwd, buf, sizeof buf);
	if (r < 0) /* also one too long for getcwd: nothing shows then that it lies in our root */
		return r;
	x->in_cwd = buf[0] == '/';
	return x->in_cwd ? 0 : -EPERM;
}
