/* The launcher: what is installed as `pyrun`. It does the plain case of the verbs that engines call all the time, and no other.
 *
 * It reads the command line as pyrun/cli/parse.py does, as far as that goes; the container's record says what to do. Every other verb,
 * option and value, every surprise, and every error execs Python on the same command line, so that there is one place which
 * explains. There is no policy here: a plan was made by Python before, and is replayed.
 */
#include "launcher.h"
#include "steps.h"

#define FAILED "PYRUN_FAILED="

char **environment;
static char **arguments;
static int argument_count;

int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static int starts(const char *text, const char *with)
{
	while (*with)
		if (*text++ != *with++)
			return 0;
	return 1;
}

/* Appends text; NULL when it does not fit before end. A NULL `to` stays one, so that calls can be chained. */
char *join(char *to, const char *end, const char *text)
{
	while (to && *text)
		if (to + 1 < end)
			*to++ = *text++;
		else
			to = NULL;
	if (to)
		*to = 0;
	return to;
}

const char *get_env(const char *name)
{
	for (char **e = environment; *e; e++)
		if (starts(*e, name) && (*e)[px_len(name)] == '=')
			return *e + px_len(name) + 1;
	return NULL;
}

/* A file of /proc and the like, in one read; ends with a NUL. */
long read_small(const char *path, char *buf, usize size)
{
	long fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0), n;
	if (fd < 0)
		return fd;
	n = sys_read((int)fd, buf, size - 1);
	sys_close((int)fd);
	if (n >= 0)
		buf[n] = 0;
	return n;
}

/* A whole regular file; it stays in memory. 0, or -1: it can't be read, or is longer than `most`, or OURS and others may have written it. */
int read_file(int dir, const char *path, usize most, int whose, struct bytes *out)
{
	struct statx st;
	long fd = sys_openat(dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0), n;
	if (fd < 0)
		return -1;
	if (sys_statx((int)fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) < 0 || (st.stx_mode & S_IFMT) != S_IFREG || st.stx_size > most ||
	    (whose == OURS && ((st.stx_mode & 022) || st.stx_uid != (u32)sc0(__NR_geteuid)))) {
		sys_close((int)fd);
		return -1;
	}
	long mem = sys_mmap(NULL, st.stx_size + 8, 3, 0x22 /* PRIVATE|ANONYMOUS */, -1);
	if (mem < 0 && mem > -4096)
		return -1;
	out->p = (u8 *)mem;
	for (out->n = 0; (n = sys_read((int)fd, out->p + out->n, st.stx_size + 1 - out->n)) > 0 && out->n <= st.stx_size;)
		out->n += (usize)n;
	sys_close((int)fd);
	return n == 0 && out->n == st.stx_size ? 0 : -1;
}

/* Field 22 of /proc/PID/stat; 0 when the process is gone or only a zombie, without a thread that has outlived its first (field 20). The name
 * in field 2 may hold anything: count from its last ')'.
 * Where /proc does not tell, Python says so: what may run must not be taken for stopped. */
u64 start_time(int pid)
{
	char path[40], buf[1024];
	char *e = join(path, path + sizeof path, "/proc/");
	join(px_num(e, (u64)pid), path + sizeof path, "/stat");
	long n = read_small(path, buf, sizeof buf), i = n - 1;
	if (n < 0 && ((n != -ENOENT && n != -ESRCH) || sys_kill(pid, 0) == 0))
		to_python(NULL);
	while (i > 0 && buf[i] != ')')
		i--;
	if (i <= 0 || i + 2 >= n)
		return 0;
	int ended = buf[i + 2] == 'Z' || buf[i + 2] == 'X', f = 2;
	u64 ticks = 0, threads = 0;
	for (; i < n && f <= 22; i++) {
		u64 digit = (u64)(buf[i] - '0');
		f += buf[i] == ' ';
		if (digit < 10 && f == 20)
			threads = threads * 10 + digit;
		if (digit < 10 && f == 22)
			ticks = ticks * 10 + digit;
	}
	return ended && threads < 2 ? 0 : ticks;
}

/* ---- to Python */

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

void to_python(const struct px_result *failed)
{
	static char dir[4096], python[4200], script[4200];
	long n = sc4(__NR_readlinkat, AT_FDCWD, "/proc/self/exe", dir, sizeof dir - 1);
	for (int up = 0; up < 2 && n > 0; up++) /* PKG/bin/pyrun */
		while (--n > 0 && dir[n] != '/')
			;
	if (n <= 0)
		die("/proc is not mounted", "", "mount -t proc proc /proc");
	dir[n] = 0;
	join(join(python, python + sizeof python, dir), python + sizeof python, "/bin/python");
	join(join(script, script + sizeof script, dir), script + sizeof script, "/__main__.py");
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
	sys_execveat(AT_FDCWD, python, argv, env, 0);
	sys_execveat(AT_FDCWD, "/usr/bin/python3", argv, env, 0);
	die("can't run Python: ", python, "is the package whole? sudo ./bootstrap install puts it in place");
}

void delete_by_python(const struct call *c)
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
	words[n] = c->id;
	arguments = (char **)words;
	argument_count = n + 1;
	to_python(NULL);
}

/* ---- the command line (pyrun/cli/table.py, pyrun/cli/parse.py) */

struct option { const char *name, *letter; const char **text; int *flag; };

static struct call call;

static const struct option GLOBAL[] = {
	{ "root", 0, &call.root, 0 }, { "log", 0, &call.log, 0 }, { "log-format", 0, &call.log_format, 0 }, { "debug", 0, 0, &call.debug },
	{ "systemd-cgroup", 0, 0, &call.systemd }, { "rootless", 0, &call.rootless, 0 }, { 0, 0, 0, 0 },
};
static const struct option NONE[] = { { 0, 0, 0, 0 } };
static const struct option KILL[] = { { "all", "a", 0, &call.all }, { 0, 0, 0, 0 } };
static const struct option DELETE[] = { { "force", "f", 0, &call.force }, { 0, 0, 0, 0 } };
/* stops: whether the first word ends the options. */
static const struct { const char *name; const struct option *options; void (*run)(struct call *); int words, stops; } VERBS[] = {
	[VERB_START] = { "start", NONE, run_start, 1, 0 },
	[VERB_STATE] = { "state", NONE, run_state, 1, 0 },
	[VERB_KILL] = { "kill", KILL, run_kill, 2, 1 },
	[VERB_DELETE] = { "delete", DELETE, run_delete, 1, 0 },
	[VERB_CREATE] = { .name = "create" }, [VERB_RUN] = { .name = "run" }, [VERB_EXEC] = { .name = "exec" }, /* what follows the planner reads */
};
#define VERB_COUNT (int)(sizeof VERBS / sizeof *VERBS)

static const struct option *find(const struct option *from, const char *name, usize n)
{
	for (; from->name; from++)
		if ((px_len(from->name) == n && starts(name, from->name)) || (from->letter && n == 1 && *name == *from->letter))
			return from;
	return NULL;
}

/* Reads options from argv[at]; words go to `words`, at most `most`. Where it ended, or 0: not for us. Without a verb the first word ends it,
 * and so does one too many where a rest may follow. */
static int read_options(int at, const struct option *mine, const char **words, int most, int stops)
{
	int count = 0;
	while (at < argument_count) {
		const char *word = arguments[at];
		if (word[0] != '-' || (stops && count)) {
			if (!most)
				return at;
			if (count == most)
				return 0;
			words[count++] = word;
			at++;
			continue;
		}
		const char *name = word + 1 + (word[1] == '-'), *value = name;
		while (*value && *value != '=')
			value++;
		const struct option *o = find(mine, name, (usize)(value - name));
		if (!o)
			o = find(GLOBAL, name, (usize)(value - name));
		if (!o)
			return 0;
		at++;
		if (o->flag) {
			if (*value && !same(value, "=true") && !same(value, "=false"))
				return 0;
			*o->flag = !same(value, "=false");
			continue;
		}
		if (!*value && at == argument_count)
			return 0;
		const char *text = *value ? value + 1 : arguments[at++];
		*o->text = text;
	}
	return at;
}

int is_id(const char *id)
{
	usize n = 0;
	for (; id[n]; n++) {
		char c = id[n];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '+' || c == '-' || c == '.'))
			return 0;
	}
	return n && n < 256 && !same(id, ".") && !same(id, "..");
}

/* Absolute, not /, and written as Python would write it: no //, no . or .., no slash at its end. */
int is_clean(const char *p)
{
	if (*p != '/' || !p[1] || px_len(p) > 3000)
		return 0;
	for (; *p; p++)
		if (*p == '/' && (!p[1] || p[1] == '/' || (p[1] == '.' && (!p[2] || p[2] == '/' || (p[2] == '.' && (!p[3] || p[3] == '/'))))))
			return 0;
	return 1;
}

/* As default_root() of pyrun/cli/main.py; NULL where it has more to ask. */
static const char *default_root(void)
{
	char map[256];
	const char *dir = get_env("XDG_RUNTIME_DIR");
	static char root[4096];
	if (!dir || !*dir)
		return "/run/pyrun";
	if (sc0(__NR_geteuid) != 0)
		return join(join(root, root + sizeof root, dir), root + sizeof root, "/pyrun") ? root : NULL;
	if (read_small("/proc/self/uid_map", map, sizeof map) < 0)
		return NULL;
	const char *want = "0 0 4294967295 ";
	for (const char *p = map; *p;) { /* the words of the one line */
		while (*p == ' ' || *p == '\n')
			p++;
		while (*p && *p != ' ' && *p != '\n')
			if (*p++ != *want++)
				return NULL;
		if (*p && *want++ != ' ')
			return NULL;
		while (*p == ' ' || *p == '\n')
			p++;
	}
	return *want ? NULL : "/run/pyrun";
}

/* The log that was asked for is made, and must be writable, though only errors go there and these are Python's. */
int log_ok(void)
{
	if (call.log_format && !same(call.log_format, "text") && !same(call.log_format, "json"))
		return 0;
	if (!call.log || !*call.log)
		return 1;
	long fd = sys_openat(AT_FDCWD, call.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd >= 0)
		sys_close((int)fd);
	return fd >= 0;
}

static void run(void)
{
	const char *words[2] = { NULL, NULL };
	int at = read_options(1, NONE, NULL, 0, 1), verb = 0;
	if (!at || at >= argument_count)
		return;
	while (verb < VERB_COUNT && !(VERBS[verb].name && same(VERBS[verb].name, arguments[at])))
		verb++;
	if (verb == VERB_COUNT)
		return;
	call.verb = (enum verb)verb;
	if (!VERBS[verb].run) {
		if (call.root || (call.root = default_root()))
			run_planned(&call, arguments + 1, argument_count - 1);
		return;
	}
	at = read_options(at + 1, VERBS[verb].options, words, VERBS[verb].words, VERBS[verb].stops);
	if (at != argument_count)
		return;
	call.id = words[0];
	call.signal = words[1];
	if (!call.id || !is_id(call.id) || call.debug)
		return;
	if (call.rootless && !same(call.rootless, "auto") && !same(call.rootless, "true") && !same(call.rootless, "false"))
		return;
	if (!call.root)
		call.root = default_root();
	if (!call.root || !is_clean(call.root) || !log_ok())
		return;
	VERBS[verb].run(&call);
}

void __attribute__((noreturn, used)) px_start(long *sp)
{
	argument_count = (int)sp[0];
	arguments = (char **)(sp + 1);
	environment = arguments + argument_count + 1;
	const struct px_sigaction ignore = { .handler = (void *)1 };
	sc4(__NR_rt_sigaction, 13 /* SIGPIPE, as Python has it */, &ignore, 0, 8);
	/* A closed standard descriptor would be the number of the next one that is opened, and that one the container's. */
	for (int fd = 0; fd < 3; fd++)
		if (sys_fcntl(fd, F_GETFD, 0) == -EBADF)
			sys_openat(AT_FDCWD, "/dev/null", O_RDWR, 0);
	run();
	to_python(NULL);
}
