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

/* "populated 1" in cgroup.events covers the children too. */
static long populated(int dir)
{
	char buf[256];
	long fd = sys_openat(dir, "cgroup.events", O_RDONLY | O_CLOEXEC, 0), n;
	if (fd < 0)
		return fd;
	n = sys_read((int)fd, buf, sizeof buf);
	sys_close((int)fd);
	for (long i = 0; i + 11 <= n; i++)
		if (buf[i] == 'p' && buf[i + 1] == 'o' && buf[i + 9] == ' ')
			return buf[i + 10] == '1';
	return n < 0 ? n : 0;
}

long do_check_empty(struct px_ctx *x, const struct px_step *s)
{
	long r = populated(px_fd(x, s->in0));
	return r == 1 ? -ENOTEMPTY : r;
}

struct dirent64 { u64 ino; i64 off; u16 len; u8 type; char name[]; };

/* Removes the children of an empty cgroup, deepest first. */
static long remove_children(int dir, int depth)
{
	char buf[2048];
	long n, r = 0;
	while (depth < 32 && (n = sc3(__NR_getdents64, dir, buf, sizeof buf)) > 0)
		for (long i = 0; i < n; i += ((struct dirent64 *)(buf + i))->len) {
			struct dirent64 *d = (void *)(buf + i);
			if (d->type != 4 /* DT_DIR */ || d->name[0] == '.')
				continue;
			long child = sys_openat(dir, d->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
			if (child >= 0) {
				remove_children((int)child, depth + 1);
				sys_close((int)child);
			}
			long k = sc3(__NR_unlinkat, dir, d->name, AT_REMOVEDIR);
			if (k < 0 && k != -ENOENT)
				r = k;
		}
	return r;
}

/* s0 the cgroup's path, a: with its children and what runs in them. Killed processes leave it some time later: EBUSY is waited out, 10 s at most. */
long do_remove_cgroup(struct px_ctx *x, const struct px_step *s)
{
	const char *path = px_str(x, s->s0);
	long r = sc3(__NR_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
	if (r == 0 || r == -ENOENT || !s->a)
		return r == -ENOENT ? 0 : r;
	long dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (dir < 0)
		return dir == -ENOENT ? 0 : dir;
	if (populated((int)dir) == 1)
		put((int)dir, "cgroup.kill", "1");
	r = -EBUSY;
	for (int i = 0; i < 1100 && r == -EBUSY; i++) {
		if (i)
			sys_poll(NULL, 0, i < 100 ? 1 : 10);
		sc3(__NR_lseek, dir, 0, 0);
		if (populated((int)dir) != 1)
			remove_children((int)dir, 0);
		r = sc3(__NR_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
		x->substep = (u32)i;
	}
	sys_close((int)dir);
	return r == -ENOENT ? 0 : r;
}
