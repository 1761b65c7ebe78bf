/* What the files of the parent lane share. */
#ifndef PYRUN_PARENT_H
#define PYRUN_PARENT_H

#include "steps.h"
#include "px.h"

struct px {                       /* a plan under way: the context, and what only the parent keeps */
	struct px_ctx x;
	u64 mem;                  /* bytes of the whole allocation */
	i32 trace_fd;
	u32 child_lane, child_step, child_substep;
	int child_failed;
	u8 *plan;
};

/* parent.c. The next message of a child, for ms (0: however long it takes). An error of the child ends our lane with the child's own errno. */
long px_next_msg(struct px *p, u64 ms);
long px_ack(struct px_ctx *x);
/* stage1.c */
long do_clone3(struct px *p, const struct px_step *s);
long do_await_pid(struct px *p, const struct px_step *s);
long do_reap(struct px *p, const struct px_step *s);
/* Kills and reaps what the plan has made: stage 1, stage 2, or both. -ETIMEDOUT: it does not end. */
long px_kill_child(struct px_ctx *x);

#endif
