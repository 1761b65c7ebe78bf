/* What the launcher's files share. Everything that is not the plain case goes to Python, which says what is wrong. */
#ifndef PYRUN_LAUNCHER_H
#define PYRUN_LAUNCHER_H

#include "sys.h"
#include "px.h"

enum verb { VERB_START, VERB_STATE, VERB_KILL, VERB_DELETE, VERB_CREATE, VERB_RUN, VERB_EXEC, VERB_WAIT };

struct call {                      /* a command line that we understand whole */
	enum verb verb;
	const char *root, *log, *log_format, *rootless;
	int debug, systemd, all, force, removes;
	const char *id, *signal, *pid, *pidfd;
	long dir;                  /* the container's directory, held since its record was read; or -errno */
};

struct bytes { u8 *p; usize n; };

/* What a stored plan finds in its first slots (pyrun/plan/lifecycle.py). */
enum held { HELD_STATE, HELD_CGROUP };

/* ROOT/ID/record, as pyrun/runtime/record.py writes it. */
#define HAS_POSTSTART 1u
#define HAS_POSTSTOP 2u
#define SHARED_PIDNS 4u
#define SYSTEMD 8u
enum blob { B_ID, B_BUNDLE, B_ROOTFS, B_CREATED, B_OWNER, B_ANNOTATIONS, B_CGROUP, B_STATE_HEAD, B_STATE_TAIL, B_START, B_DELETE, B_EXTRA, B_COUNT };
enum status { CREATING, CREATED, RUNNING, PAUSED, STOPPED };
extern const char *const STATUS[];

struct record {
	char magic[8];
	u64 pid, start, status, cgroup, unused, unused_too, pidns, timens;
	char boot_id[36];
	u32 sum, flags, count;
	struct { u32 off, len; } blobs[B_COUNT];
};

/* reading.c and hand_over.c */
extern char **environment, **arguments;
extern int argument_count;
const char *get_env(const char *name);
int same(const char *a, const char *b);
/* Hands the command line to Python. failed: the plan that Python would run was run and failed thus, and is undone. */
void __attribute__((noreturn)) to_python(const struct px_result *failed);
/* The path of a file of the package we are in; 0: it can't be told. */
int in_package(char *path, usize size, const char *file);
/* From here on the command line is `delete` of the container: what Python gets can't run it again. code: what we exit with when it succeeds. */
void become_delete(const struct call *c, int code, int force);
int log_ok(const struct call *c);
int starts(const char *text, const char *with);
char *join(char *to, const char *end, const char *text);
long read_small(const char *path, char *buf, usize size);
enum whose { ANYONES, OURS };
int read_file(int dir, const char *path, usize most, int whose, struct bytes *out);
int is_clean(const char *path);
int is_id(const char *id);
/* record.c */
static inline const char *blob(const struct record *r, enum blob b) { return (const char *)r + r->blobs[b].off; }
u64 start_time(int pid);
u32 record_sum(const u8 *record, usize n);
struct record *read_record(struct call *c);
enum status status_of(const struct call *c, const struct record *r);
int own_cgroup(const struct record *r);
usize render_state(const struct record *r, enum status s, char *text, usize room);
/* verbs.c */
void print(const char *text, usize n);
/* Each ends the process, or returns to have Python do it */
void run_state(struct call *c);
void run_start(struct call *c);
void run_kill(struct call *c);
void run_delete(struct call *c);
void remove_container(struct call *c, int pid, int code);
/* planned.c: create, run and exec; words: the command line without the program's name. */
void run_planned(struct call *c, char *const *words, int count);
/* What Python becomes when it has made what run or exec waits for (pyrun/cli/foreground.py). */
void run_wait(struct call *c);

#endif
