/* What the supervisor's files share: the tables of containers, makers, execs and connections, and the loop's clock. */
#ifndef PYRUN_POD_H
#define PYRUN_POD_H

#include "message.h"
#include "steps.h"
#include "px.h"

#define DIRECTORY 3            /* STATE/pods/POD, from who launched us; nothing outside of it is opened but /dev/null and the cgroup of a container */
#define CTRS 256
#define CALLS 160              /* connections at a time: those that wait for a maker, execs and event streams among them */
#define ATTACHED 16
#define LINE 16384             /* bytes of a line that are one entry of the log */
#define READ 65536
#define NEVER 0x7fffffffffffffffL
#define MS 1000000L

struct stream {                /* what a container writes: a pipe's read end, or a terminal's master */
	int fd;                /* -1: at its end */
	u8 midline;            /* the last entry was a part of a line */
	u8 skips;              /* the rest of the line is left out: it is too much */
	u32 held;              /* bytes in part: the beginning of a line whose end has not come */
	char *part;
};

struct ctr {
	struct pod_known k;    /* k.state POD_FREE: an unused place */
	struct stream out[2];
	int input;             /* the writer of its standard input, or -1 */
	int oom;               /* its memory.events, or -1 */
	int oom_above;         /* that of the slice that it is a scope in, or -1 */
	i64 others;            /* kills counted there that were nobody's when it came to be */
	int exit;              /* exits/NAME, open since CREATE */
	int log, next_log;     /* -1: none */
	i32 log_call;          /* who waits for the switch to next_log, or -1 */
	long switch_by, drain_by, blocked, retry_at; /* of sys_now(); NEVER: not now */
	long patience;         /* ns; 0: without end */
	char *pend;            /* entries that could not be written */
	u32 pend_at, pend_len;
	u8 dropping;           /* patience has run out: what can't be written is counted */
	u8 torn;               /* the log ends within an entry */
	u8 told;               /* its end has been told, so its streams are at theirs */
	i32 log_err;           /* what the log's last failure was */
	u64 unnoted;           /* bytes lost that no entry tells of */
	u64 rate;              /* bytes of log a second; 0: as much as there is */
	u64 used;              /* of them, in the second that ends at rate_until */
	u64 left_out;          /* lines of it that were too much */
	long rate_until;       /* NEVER: nothing was written for long */
	int attached[ATTACHED];
};

enum use { CALL_FREE, CALL_NEW, CALL_MAKING, CALL_RUNNING, CALL_EVENTS, CALL_SWITCH };
struct call {                  /* a connection, and what it waits for */
	u8 use;
	u8 kind;               /* CALL_MAKING: POD_CREATE or POD_EXEC */
	int fd;
	long by;               /* CALL_NEW: when it must have said what it wants */
	i32 pid, maker;        /* the exec; the maker */
	int sock;              /* to the maker */
	int console;           /* CREATE with a terminal: where its master comes */
	struct ctr *ctr;       /* of CREATE */
	char name[POD_NAME];
};

struct made {                  /* what a maker tells before it ends; the pidfd and memory.events by SCM_RIGHTS */
	u64 start;
	u64 traced;            /* the last descriptor has the times of its steps */
	struct px_result result;
};

struct fds { u32 n; int fd[POD_FDS]; };

extern struct ctr ctrs[CTRS];
extern struct call calls[CALLS];
extern long next_timer;
extern int leaving;            /* SIGTERM has come: nothing new is begun */
extern int adjust;             /* oom_score_adj that we were started with */
#define PX_RLIMIT_NOFILE 7
struct px_rlimit { u64 soft, hard; };
extern struct px_rlimit nofile; /* the same of this limit; a soft one of 0: not known */

/* main.c */
enum watched { WATCH_LISTEN, WATCH_SIGNALS, WATCH_CALL, WATCH_MAKER, WATCH_STREAM };
long watch(int fd, enum watched what, u32 index, u32 sub);
void unwatch(int fd);
static inline void arm(long at) { next_timer = at < next_timer ? at : next_timer; }
void shut(int *fd);
long mem_map(usize n);
u64 wall_ns(void);
static inline long fork_here(void)
{
#if defined(__NR_fork)
	return sc0(__NR_fork);
#else
	return sc5(__NR_clone, PX_SIGCHLD, 0, 0, 0, 0);
#endif
}
/* socket.c */
long receive(int fd, void *buf, usize n, struct fds *got);
long tell(int fd, const void *head, usize head_len, const void *body, usize body_len, const int *fds, u32 n_fds);
long reply(int fd, enum pod_kind kind, i32 err, i64 value, i32 pid);
/* serve.c */
void serve_call(struct call *c);
void end_call(struct call *c);
void maker_spoke(struct call *c);
void tell_exit(const struct ctr *c);
/* maker.c */
long start_maker(struct call *c, const struct pod_request *r, struct fds *given, const int *streams);
/* reap.c */
void reap_all(void);
void note_end(struct ctr *c, i32 status);
i64 nobodys_kills(const struct ctr *c);
void forget(struct ctr *c);
/* log.c */
void log_read(struct ctr *c, struct stream *s);
void log_timers(struct ctr *c, long now);
void log_switch(struct ctr *c, int fd, struct call *asker);
void log_done(struct ctr *c);
int log_cools(void);
/* attach.c */
long attach(struct ctr *c);
void tee(struct ctr *c, u8 number, const char *data, usize n);
void cut_all(struct ctr *c);
/* stamp.c */
#define STAMP 30
void stamp(char *to, u64 ns);

#endif
