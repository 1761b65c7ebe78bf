/* The launcher: what is installed as `pyrun`. It does the plain case of the verbs that engines call all the time, and no other.
 *
 * It reads the command line as pyrun/cli/parse.py does, as far as that goes; the container's record says what to do. Every other verb,
 * option and value, every surprise, and every error execs Python on the same command line, so that there is one place which
 * explains. There is no policy here: a plan was made by Python before, and is replayed.
 */
#include "launcher.h"
#include "steps.h"

/* The command line, as pyrun/cli/table.py and parse.py have it. */

struct option { const char *name, *letter; const char **text; int *flag; };

static struct call call;

static const struct option GLOBAL[] = {
	{ "root", 0, &call.root, 0 }, { "log", 0, &call.log, 0 }, { "log-format", 0, &call.log_format, 0 }, { "debug", 0, 0, &call.debug },
	{ "systemd-cgroup", 0, 0, &call.systemd }, { "rootless", 0, &call.rootless, 0 }, { 0, 0, 0, 0 },
};
static const struct option NONE[] = { { 0, 0, 0, 0 } };
static const struct option KILL[] = { { "all", "a", 0, &call.all }, { 0, 0, 0, 0 } };
static const struct option DELETE[] = { { "force", "f", 0, &call.force }, { 0, 0, 0, 0 } };
static const struct option WAIT[] = {
	{ "id", 0, &call.id, 0 }, { "pid", 0, &call.pid, 0 }, { "pidfd", 0, &call.pidfd, 0 }, { "delete", 0, 0, &call.removes }, { 0, 0, 0, 0 },
};
/* stops: whether the first word ends the options. */
static const struct { const char *name; const struct option *options; void (*run)(struct call *); int words, stops; } VERBS[] = {
	[VERB_START] = { "start", NONE, run_start, 1, 0 },
	[VERB_STATE] = { "state", NONE, run_state, 1, 0 },
	[VERB_KILL] = { "kill", KILL, run_kill, 2, 1 },
	[VERB_DELETE] = { "delete", DELETE, run_delete, 1, 0 },
	[VERB_CREATE] = { .name = "create" }, [VERB_RUN] = { .name = "run" }, [VERB_EXEC] = { .name = "exec" }, /* what follows the planner reads */
	[VERB_WAIT] = { "wait~", WAIT, run_wait, 0, 0 }, /* nobody types it, and Python does not know it */
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

/* As default_root() of pyrun/cli/root.py; NULL where it has more to ask. */
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

static void carry_out(void)
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
	if (verb == VERB_WAIT)
		run_wait(&call);
	call.id = words[0];
	call.signal = words[1];
	if (!call.id || !is_id(call.id) || call.debug)
		return;
	if (call.rootless && !same(call.rootless, "auto") && !same(call.rootless, "true") && !same(call.rootless, "false"))
		return;
	if (!call.root)
		call.root = default_root();
	if (!call.root || !is_clean(call.root) || !log_ok(&call))
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
	carry_out();
	to_python(NULL);
}
