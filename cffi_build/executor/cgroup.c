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

/* Removes the children of an empty cgroup, deepest first. The container may have nested them deeper than a stack or a table of descriptors
 * goes: so down to the first leaf each time. */
static void remove_children(int dir)
{
	char name[256], next[256];
	for (long r = 0; r == 0;) {
		long parent = -1, child = open_child(dir, name), deeper;
		if (child < 0)
			return;
		while ((deeper = open_child((int)child, next)) >= 0) {
			if (parent >= 0)
				sys_close((int)parent);
			parent = child;
			child = deeper;
			for (usize k = 0; k < sizeof next; k++)
				name[k] = next[k];
		}
		r = sc3(__NR_unlinkat, parent >= 0 ? (int)parent : dir, name, AT_REMOVEDIR);
		sys_close((int)child);
		if (parent >= 0)
			sys_close((int)parent);
		if (r == -ENOENT)
			r = 0;
	}
}

/* s0 the cgroup's path, a: with its children and what runs in them. Killed processes leave it some time later: EBUSY is waited out, 10 s at most.
 * in1: our state directory, if it must still be there; when it was removed another container may have the cgroup's name by now, and keeps it. */
long do_remove_cgroup(struct px_ctx *x, const struct px_step *s)
{
	const char *path = px_str(x, s->s0);
	long r = sc3(__NR_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
	int ours = px_linked(x, s->in1);
	if (r == 0 || r == -ENOENT || !s->a || !ours)
		return r == -ENOENT || (r == -EBUSY && !ours) ? 0 : r;
	long dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (dir < 0)
		return dir == -ENOENT ? 0 : dir;
	x->substep = 1;
	r = -EBUSY;
	for (int i = 0; i < 1100 && r == -EBUSY; i++) {
		if (i)
			sys_poll(NULL, 0, i < 100 ? 1 : 10);
		if (populated((int)dir) != 1)
			remove_children((int)dir);
		else if (i % 100 == 0) /* again: one that is being made may have come in since */
			put((int)dir, "cgroup.kill", "1");
		r = sc3(__NR_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
	}
	sys_close((int)dir);
	return r == -ENOENT ? 0 : r;
}
