/* To Python: the same command line, and how a plan has failed. */
#include "launcher.h"
#include "steps.h"

#define FAILED "PYRUN_FAILED="

char **arguments;
int argument_count;
static int then_exit = -1; /* what we exit with when Python has done what it is to do; -1: we become it */

static void __attribute__((noreturn)) die(const char *what, const char *path, const char *hint)
{
	char buf[4400];
	char *e = join(join(buf, buf + sizeof buf, "pyrun: "), buf + sizeof buf, what);
	e = join(join(join(e, buf + sizeof buf, path), buf + sizeof buf, "\n  hint: "), buf + sizeof buf, hint);
	e = join(e, buf + sizeof buf, "\n");
	if (e)
		sys_write(2, buf, (usize)(e - buf));
	sys_exit(1);
}

static char *number(char *to, const char *end, i64 v)
{
	if (!to || end - to < 24)
		return NULL;
	if (v < 0)
		*to++ = '-';
	to = px_num(to, v < 0 ? (u64)-v : (u64)v);
	return join(to, end, " ");
}

/* "LANE STEP SUBSTEP ERRNO CHILD-STATUS UNDO-ERRNO UNDO-STEP HEX", as pyrun/executor reads it. */
static char *render_failure(const struct px_result *r)
{
	static char buf[2 * PX_TEXT + 256];
	const char *end = buf + sizeof buf;
	const i64 values[] = { r->lane, r->step, r->substep, r->err, r->child_status, r->undo_err, r->undo_step };
	char *e = join(buf, end, FAILED);
	for (usize i = 0; i < sizeof values / sizeof *values; i++)
		e = number(e, end, values[i]);
	for (u32 i = 0; e && i < r->text_len && end - e > 3; i++) {
		*e++ = "0123456789abcdef"[(u8)r->text[i] >> 4];
		*e++ = "0123456789abcdef"[r->text[i] & 15];
	}
	if (e)
		*e = 0;
	return buf;
}

struct program { const char *file; char **argv, **env; };

static int PX_CHILD become(void *p)
{
	const struct program *python = p;
	sys_execveat(AT_FDCWD, python->file, python->argv, python->env, 0);
	sys_execveat(AT_FDCWD, "/usr/bin/python3", python->argv, python->env, 0);
	die("can't run Python: ", python->file, "is the package whole? sudo ./bootstrap install puts it in place");
}

int in_package(char *path, usize size, const char *file)
{
	static char dir[4096];
	long n = sc4(__NR_readlinkat, AT_FDCWD, "/proc/self/exe", dir, sizeof dir - 1);
	for (int up = 0; up < 2 && n > 0; up++) /* PKG/bin/pyrun */
		while (--n > 0 && dir[n] != '/')
			;
	dir[n > 0 ? n : 0] = 0;
	return n > 0 && join(join(path, path + size, dir), path + size, file);
}

void to_python(const struct px_result *failed)
{
	static char python[4200], script[4200];
	if (!in_package(python, sizeof python, "/bin/python") || !in_package(script, sizeof script, "/__main__.py"))
		die("/proc is not mounted", "", "mount -t proc proc /proc");
	/* What is kept open so far is closed on exec. Whoever runs us can't pretend a failure. */
	char **argv = (char **)sys_mmap(NULL, (usize)(argument_count + 8) * sizeof *argv, 3, 0x22, -1), **a = argv, **keep = environment, **e;
	if ((long)argv < 0 && (long)argv > -4096)
		die("out of memory", "", "is there a limit? see `ulimit -v`");
	for (e = environment; *e; e++)
		if (!starts(*e, FAILED))
			*keep++ = *e;
	*keep = NULL;
	char **env = environment;
	if (failed) {
		usize count = (usize)(keep - environment);
		env = (char **)sys_mmap(NULL, (count + 2) * sizeof *env, 3, 0x22, -1);
		if ((long)env < 0 && (long)env > -4096)
			die("out of memory", "", "is there a limit? see `ulimit -v`");
		for (usize i = 0; i < count; i++)
			env[i + 1] = environment[i];
		env[0] = render_failure(failed);
	}
	*a++ = python;
	*a++ = (char *)"-I";
	*a++ = (char *)"-S";
	*a++ = script;
	for (int i = 1; i < argument_count; i++)
		*a++ = arguments[i];
	struct program program = { python, argv, env };
	if (then_exit >= 0) {
		i32 pidfd, status = 1;
		const long child = px_vfork(become, &program, 0, -1, &pidfd);
		while (child > 0 && sys_wait4((int)child, &status, 0) == -EINTR)
			;
		sys_exit(status ? 1 : then_exit);
	}
	sys_exit(become(&program));
}

void become_delete(const struct call *c, int code, int force)
{
	static const char *words[12];
	int n = 1;
	words[n++] = "--root";
	words[n++] = c->root;
	if (c->log) {
		words[n++] = "--log";
		words[n++] = c->log;
		words[n++] = "--log-format";
		words[n++] = c->log_format ? c->log_format : "text";
	}
	words[n++] = "delete";
	if (force)
		words[n++] = "--force";
	words[n] = c->id;
	then_exit = code;
	arguments = (char **)words;
	argument_count = n + 1;
}
