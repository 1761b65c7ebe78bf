/* The supervisor's messages: what pyrun/pod/supervisor.py sends over the SOCK_SEQPACKET socket, and what it gets back.
 *
 * A connection carries one request. Descriptors come along by SCM_RIGHTS; each kind has its number of them, and a message with another is
 * refused. The answer is one message, but for HELLO (KNOWN, several), EVENTS (EXIT for ever), and EXEC and CREATE (YIELD before RESULT; of
 * EXEC an EXIT at the end). All integers are in the machine's order. tests/unit/test_pod_messages.py holds the sizes against the Python side.
 */
#ifndef PYRUN_POD_MESSAGE_H
#define PYRUN_POD_MESSAGE_H

#include "sys.h"

#define POD_MAGIC 0x31444f50u  /* "POD1" */
#define POD_NAME 72            /* a container's name, 64 bytes at the most, and NULs */
#define POD_FDS 4

enum pod_kind {
	POD_HELLO = 1, POD_CREATE, POD_EXEC, POD_LOG, POD_ATTACH, POD_STDIN, POD_RESIZE, POD_DROP, POD_END, POD_EVENTS, POD_GO, POD_KINDS,
	POD_DONE = 32, POD_RESULT, POD_KNOWN, POD_EXIT, POD_YIELD,
};

#define POD_TRACES 1           /* KNOWN's value: makers carry traced plans out, and RESULT has the memfd of their times behind the pidfd */
#define POD_TTY 1u             /* a terminal: its master is ours (CREATE) or the client's (EXEC) */
#define POD_OPEN_STDIN 2u      /* a standard input that STDIN hands out, else /dev/null */
#define POD_STDIN_ONCE 4u      /* it ends when the first who had it ends */
#define POD_HAS_LOG 8u         /* CREATE: the log's descriptor is behind the plan's */
#define POD_FLAGS 15u
#define POD_LOG_RATE 8         /* CREATE: from this bit of the flags on, KiB of log a second; 0: as much as there is */

/* CREATE: the plan's memfd, the log. EXEC: the plan's memfd, then three standard streams, or with POD_TTY a console socket. LOG: the log. */
struct pod_request {
	u32 magic, kind, flags;
	u32 value;             /* CREATE: ms for which a log that can't be written to stops the container, 0: for ever; RESIZE: columns << 16 | rows */
	char name[POD_NAME];   /* the container's; empty in HELLO, END, EVENTS and GO */
	char path[4000];       /* CREATE: its cgroup, or empty; sent as far as its NUL */
};
#define POD_HEAD (sizeof(struct pod_request) - 4000)

struct pod_reply {
	u32 magic, kind;
	i32 err;               /* errno; 0: done */
	u32 count;             /* KNOWN: how many follow; the last such message has fewer than POD_TOLD */
	i64 value;             /* RESULT of a maker that died: its wait status; YIELD: the code */
	i32 pid;               /* RESULT, YIELD */
	u32 pad;
};

enum pod_state { POD_FREE, POD_MAKING, POD_LIVE, POD_ENDED };
struct pod_known {
	char name[POD_NAME];
	u32 state;
	i32 pid;
	u64 start;             /* clock ticks since boot */
	i32 status;            /* wait status of one that has ended */
	u32 flags;
	u64 ended_ns;          /* since 1970 */
	u64 oom_kills, log_bytes, lost_bytes;
};
#define POD_TOLD 30u           /* of them in a message */

/* exits/NAME: written when the init has ended, over what CREATE put there, so that a full file system can't keep it from being written. */
struct pod_exit {
	char magic[8];
	i32 pid, status;
	u64 start, ended_ns, oom_kills;
	u32 pad, sum;          /* FNV-1a of what is before */
};

/* Whether n bytes with so many descriptors are a request that we can act on; else -errno. The strings in it end with a NUL then. */
long pod_check(struct pod_request *r, long n, u32 fds);
u32 pod_sum(const void *p, usize n);

#endif
