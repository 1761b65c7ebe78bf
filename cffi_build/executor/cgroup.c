/* Steps on whole cgroups: is anything in it, and away with it. Only the parent has them. */
#include "steps.h"

static long put(int dir, const char *name, const char *text)
{
	long fd = sys_openat(dir, name, O_WRONLY | O_CLOEXEC, 0), r;
	if (fd < 0)
		return fd;
	r = sys_write((int)fd, text, px_len(text));
	sys_close((int)fd);
	return r < 0 ? r : 0;
}

/* Whether cgroup.events says `name` 1: "populated" covers the children too, "frozen" the parents. */
static long event(int dir, const char *name)
{
	char buf[256];
	const long len = (long)px_len(name), fd = sys_openat(dir, "cgroup.events", O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	const long n = sys_read((int)fd, buf, sizeof buf);
	sys_close((int)fd);
	for (long i = 0, k; i + len + 1 < n; i++) {
		for (k = 0; k < len && buf[i + k] == name[k]; k++)
			;
		if (k == len && (i == 0 || buf[i - 1] == '\n'))
			return buf[i + len + 1] == '1';
	}
	return n < 0 ? n : 0;
}

static long populated(int dir) { return event(dir, "populated"); }

/* Nor may it be frozen: what is born there would never say a word. */
long do_check_empty(struct px_ctx *x, const struct px_step *s)
{
	long r = populated(px_fd(x, s->in0));
	if (r == 0 && (r = event(px_fd(x, s->in0), "frozen")) == 1)
		return -EBUSY;
	return r == 1 ? -ENOTEMPTY : r;
}

/* in0 the record, at offset a: the inode of the cgroup in1. Without one: PX_CGROUP_CLAIMED where nothing has its path s0 yet, for then what is
 * there after a SIGKILL was made by us; else nothing is written, and it stays as it is. */
long do_save_cgroup(struct px_ctx *x, const struct px_step *s)
{
	struct statx st = { .stx_ino = PX_CGROUP_CLAIMED };
	const int made = s->in1 != PX_NONE;
	long r = sys_statx(made ? px_fd(x, s->in1) : AT_FDCWD, made ? "" : px_str(x, s->s0), made ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW, STATX_INO, &st);
	if (made ? r < 0 : r != -ENOENT)
		return made ? r : 0; /* who makes it says what is wrong there */
	x->substep = 1;
	r = sc4(__NR_pwrite64, px_fd(x, s->in0), &st.stx_ino, sizeof st.stx_ino, s->a);
	return r == (long)sizeof st.stx_ino ? 0 : r < 0 ? r : -EIO;
}

struct dirent64 { u64 ino; i64 off; u16 len; u8 type; char name[]; };

/* A child of the cgroup: opened, and its name in `name`. -ENOENT: it has none. */
static long open_child(int dir, char name[256])
{
	char buf[2048] __attribute__((aligned(8)));
	long n;
	sc3(__NR_lseek, dir, 0, 0);
	while ((n = sc3(__NR_getdents64, dir, buf, sizeof buf)) > 0)
		for (long i = 0; i < n; i += ((struct dirent64 *)(buf + i))->len) {
			const struct dirent64 *d = (void *)(buf + i);
			usize len = px_len(d->name);
			if (d->type != 4 /* DT_DIR */ || len > 255 || (d->name[0] == '.' && (len == 1 || (len == 2 && d->name[1] == '.'))))
				continue;
			for (usize k = 0; k <= len; k++)
				name[k] = d->name[k];
			return sys_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
		}
	return n < 0 ? n : -ENOENT;
}

/* Removes the children of an empty cgroup. The container may have nested them deeper than a stack, a path or a table of descriptors goes, so
 * only the place is kept: the first child found is removed; or, when it has children of its own, gone down into; from one that has none left
 * the way is up by "..". Each is tried twice at most. One that stays though it has no children ends it, and so does the deadline. */
static void remove_children(int top, long deadline)
{
	char name[256];
	int at = top, depth = 0, entered = 0; /* entered: nothing has been removed since we went down */
	for (long next; sys_now() < deadline; at = (int)next) {
		next = open_child(at, name);
		if (next >= 0 && sc3(__NR_unlinkat, at, name, AT_REMOVEDIR) == 0) {
			sys_close((int)next);
			next = at;
			entered = 0;
			continue;
		}
		if (next >= 0)
			entered = 1;
		else if (!depth || entered || (next = sys_openat(at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)) < 0)
			break;
		depth += entered ? 1 : -1;
		if (at != top)
			sys_close(at);
	}
	if (at != top)
		sys_close(at);
}

/* Whether the path still leads to the cgroup that is held: the inode of one that is gone is never another's. */
static int is_at(int dir, const char *path)
{
	struct statx held, there;
	return sys_statx(dir, "", AT_EMPTY_PATH, STATX_INO, &held) == 0 && sys_statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO, &there) == 0 &&
	       held.stx_ino == there.stx_ino;
}

/* s0 the cgroup's path, in0 itself, held since it was made or its record was read; none: whatever has the name, if nothing is in it. a: what
 * runs in it is killed; else that is not ours, and EBUSY after a second: killed processes leave it some time later, 10 s at most. Its children
 * have 30 s of their own: those of a container may take longer than that second.
 * in1: our state directory; once that was removed another container may have the cgroup's name, and keeps it. An undo (d) removes what it
 * made also when it could not hold it; any other that holds nothing has nothing to remove. */
long do_remove_cgroup(struct px_ctx *x, const struct px_step *s)
{
	const char *path = px_str(x, s->s0);
	int dir = s->in0 == PX_NONE ? -1 : px_fd(x, s->in0), ours = px_linked(x, s->in1);
	if (dir < 0 || !ours) {
		long r = s->d ? sc3(__NR_unlinkat, AT_FDCWD, path, AT_REMOVEDIR) : 0;
		return r == -ENOENT || (r == -EBUSY && !ours) ? 0 : r;
	}
	long r = -EBUSY, deadline = sys_now() + (s->a ? 10 : 1) * 1000000000L, children = 30000000000L;
	for (int i = 0; r == -EBUSY && (i == 0 || sys_now() < deadline); i++) {
		if (i)
			sys_poll(NULL, 0, i < 100 ? 1 : 10);
		if (!is_at(dir, path))
			return 0;
		r = sc3(__NR_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
		if (r != -EBUSY)
			break;
		x->substep = 1;
		if (populated(dir) != 1) {
			const long began = sys_now();
			remove_children(dir, began + children);
			const long took = sys_now() - began;
			children -= took;
			deadline += took;
		} else if (s->a && i % 100 == 0) /* again: one that is being made may have come in since */
			put(dir, "cgroup.kill", "1");
	}
	return r == -ENOENT || (r == -EBUSY && !px_linked(x, s->in1)) ? 0 : r;
}
