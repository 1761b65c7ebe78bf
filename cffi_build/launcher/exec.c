/* exec from a plan that Python has kept for this container, for this process, and for what the container was then: all of that is the
 * key (pyrun/runtime/exec_again.py). What collect_target() of pyrun/runtime/exec.py asks is asked again each time. */
#include "kept.h"
#include "steps.h"

#define SLOTS 4

static const struct { const char *file; u32 flag; } NAMESPACES[] = {
	{ "mnt", 0x00020000 }, { "cgroup", 0x02000000 }, { "uts", 0x04000000 }, { "ipc", 0x08000000 }, { "user", 0x10000000 },
	{ "pid", 0x20000000 }, { "net", 0x40000000 }, { "time", 0x00000080 },
};
#define NEWNS 0x00020000u

/* /proc/PID/name, or that of ourselves. */
static const char *of_process(char *buf, usize size, u64 pid, const char *name)
{
	char number[PX_NUM];
	px_num(number, pid);
	join(join(join(join(buf, buf + size, "/proc/"), buf + size, pid ? number : "self"), buf + size, "/"), buf + size, name);
	return buf;
}

static int namespace_of(u64 pid, const char *file, struct statx *st)
{
	char name[16], path[64];
	join(join(name, name + sizeof name, "ns/"), name + sizeof name, file);
	return sys_statx(AT_FDCWD, of_process(path, sizeof path, pid, name), 0, STATX_INO, st) == 0;
}

/* CLONE_NEW* of the namespaces that the init does not share with us; 0: they can't be looked at, or its root is not known by them. */
static u32 foreign_namespaces(u64 pid)
{
	u32 flags = 0;
	struct statx ours, theirs;
	for (usize i = 0; i < sizeof NAMESPACES / sizeof *NAMESPACES; i++) {
		if (!namespace_of(0, NAMESPACES[i].file, &ours)) /* a kernel without this kind */
			continue;
		if (!namespace_of(pid, NAMESPACES[i].file, &theirs))
			return 0;
		if (ours.stx_ino != theirs.stx_ino || ours.stx_dev_major != theirs.stx_dev_major || ours.stx_dev_minor != theirs.stx_dev_minor)
			flags |= NAMESPACES[i].flag;
	}
	return flags & NEWNS ? flags : 0;
}

/* The line of cgroup2 in /proc/PID/cgroup; "" where there is none, NULL where it is too long for us. */
static const char *cgroup_line(u64 pid)
{
	static char text[16384];
	char path[64];
	long n = read_small(of_process(path, sizeof path, pid, "cgroup"), text, sizeof text);
	if (n < 0 || n == sizeof text - 1)
		return NULL;
	for (char *line = text, *end; *line; line = end) {
		for (end = line; *end && *end != '\n'; end++)
			;
		if (*end)
			*end++ = 0;
		if (line[0] == '0' && line[1] == ':' && line[2] == ':')
			return line;
	}
	return "";
}

static const char *setgroups(u64 pid)
{
	char path[64], text[16];
	long n = read_small(of_process(path, sizeof path, pid, "setgroups"), text, sizeof text);
	return n >= 4 && equal(text, "deny", 4) ? "deny" : "";
}

/* What the container is now. 0: Python says whether that is an error. */
static int add_target(struct key *k, const struct call *c)
{
	struct record *r = read_record(c, NULL);
	enum status s = r ? status_of(c, r) : STOPPED;
	if (s != RUNNING && s != CREATED)
		return 0;
	u32 namespaces = foreign_namespaces(r->pid);
	const char *line = cgroup_line(r->pid);
	if (!namespaces || !line)
		return 0;
	add_number(k, r->pid);
	add_number(k, r->start);
	add_number(k, r->sum);
	add_number(k, namespaces);
	add(k, setgroups(r->pid));
	add(k, line);
	return 1;
}

/* The file's bytes. Only a file's: a pipe can be read once. */
static int add_file(struct key *k, const char *path)
{
	struct statx st;
	struct bytes b;
	if (sys_statx(AT_FDCWD, path, 0, STATX_TYPE, &st) < 0 || (st.stx_mode & S_IFMT) != S_IFREG || read_file(AT_FDCWD, path, sizeof k->text, ANYONES, &b) < 0)
		return 0;
	add_bytes(k, b.p, b.n);
	return 1;
}

static int add_process(struct key *k, const struct call *c)
{
	add(k, c->process ? "file" : "words");
	if (c->process)
		return add_file(k, c->process);
	add(k, c->cwd ? c->cwd : "");
	add(k, c->user ? "user" : "");
	add(k, c->user ? c->user : "");
	add_number(k, (u64)c->env.count);
	for (int i = 0; i < c->env.count; i++)
		add(k, c->env.items[i]);
	for (int i = 0; i < c->rest_count; i++)
		add(k, c->rest[i]);
	return 1;
}

/* HEAD/.TAIL.new, as pyrun/plan/exec.py has it. */
static int fill(const struct bytes *b, const char *pid_file)
{
	static char new[4200];
	struct bytes values[HOLE_KINDS] = { { NULL, 0 } };
	if (pid_file) {
		usize n = px_len(pid_file), head = n;
		while (head && pid_file[head - 1] != '/')
			head--;
		if (n + 6 > sizeof new)
			return 0;
		for (usize i = 0; i < head; i++)
			new[i] = pid_file[i];
		char *end = join(join(join(new + head, new + sizeof new, "."), new + sizeof new, pid_file + head), new + sizeof new, ".new");
		values[HOLE_PID_FILE] = (struct bytes){ (u8 *)pid_file, n };
		values[HOLE_PID_FILE_NEW] = (struct bytes){ (u8 *)new, (usize)(end - new) };
	}
	return fill_holes(b, values);
}

static int find_entry(const struct call *c, const struct key *k, struct bytes *b)
{
	char path[4200];
	for (int i = 0; i < SLOTS; i++) {
		const char name[] = { '/', 'e', 'x', 'e', 'c', '.', (char)('0' + i), 0 };
		if (place(c, path, path + sizeof path, name) && read_entry(AT_FDCWD, path, k, b))
			return 1;
	}
	return 0;
}

void run_exec(struct call *c)
{
	static struct key k;
	struct bytes b;
	int err, pid;
	if (!c->process == !c->rest_count || (c->process && (!*c->process || c->cwd || c->user || c->env.count)))
		return;
	if ((c->pid_file && !*c->pid_file) || (c->rootless && !same(c->rootless, "auto") && !same(c->rootless, "false")))
		return;
	add(&k, c->detach ? "exec detach" : "exec");
	add(&k, c->root);
	add(&k, c->id);
	add_number(&k, c->pid_file ? px_len(c->pid_file) : 0);
	if (!add_target(&k, c) || !add_process(&k, c) || !find_entry(c, &k, &b) || !all_hold(&b) || !fill(&b, c->pid_file))
		return;
	const struct entry *e = (const void *)b.p;
	px_run_t *run = px_new(b.p + e->plan, e->plan_len, &err);
	if (!run)
		return;
	if (c->detach) /* the container may have moved since we looked */
		run_whole(run, DONE_AGAIN);
	sys_exit(run_foreground(run, DONE_AGAIN, &pid));
}
