/* What the launcher's files share. Everything that is not the plain case goes to Python, which says what is wrong. */
#ifndef PYRUN_LAUNCHER_H
#define PYRUN_LAUNCHER_H

#include "sys.h"
#include "px.h"

enum verb { VERB_START, VERB_STATE, VERB_KILL, VERB_DELETE, VERB_CREATE, VERB_RUN };

struct call {                      /* a command line that we understand whole */
	enum verb verb;
	const char *root, *log, *log_format, *rootless, *bundle, *pid_file;
	int debug, systemd, all, force, detach, keep, no_keyring;
	const char *id, *signal;
};

struct bytes { u8 *p; usize n; };

/* launcher.c */
extern char **environment;
const char *get_env(const char *name);
int same(const char *a, const char *b);
/* Hands the command line to Python. failed: the plan that Python would run was run and failed thus, and is undone. */
void __attribute__((noreturn)) to_python(const struct px_result *failed);
/* `delete --force` of the container, in Python: it says what is in the way. */
void __attribute__((noreturn)) delete_by_python(const struct call *c);
char *join(char *to, const char *end, const char *text);
long read_small(const char *path, char *buf, usize size);
enum whose { ANYONES, OURS };
int read_file(int dir, const char *path, usize most, int whose, struct bytes *out);
u64 start_time(int pid);
int is_clean(const char *path);
/* launcher_verbs.c: each ends the process, or returns to have Python do it */
void run_state(struct call *c);
void run_start(struct call *c);
void run_kill(struct call *c);
void run_delete(struct call *c);
void remove_container(struct call *c, int pid);
/* launcher_create.c */
void run_create(struct call *c);
void run_run(struct call *c);

#endif
