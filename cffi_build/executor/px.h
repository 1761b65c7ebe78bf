/* The executor's interface: what the Python module and the launcher call. */
#ifndef PYRUN_PX_H
#define PYRUN_PX_H

typedef struct px_run px_run_t;

struct px_result {
	int status;                    /* 0 done, 1 a step failed, 2 YIELD: the caller acts and calls px_run again */
	unsigned int lane, step, substep;
	int err;                       /* errno of the step */
	int pid;                       /* the container's init, as we see it */
	int stage1;                    /* pid of stage 1 while it lives */
	int yielded;                   /* operand of the YIELD */
	int child_status;              /* wait status of a child that died without a word, or 0 */
	int undo_err;                  /* errno of the first undo step that failed, or 0 */
	unsigned int undo_step;
	unsigned int text_len;         /* what a hook, a helper or a file system said */
	char text[4096];
};

/* plan: an encoded plan; it is copied. NULL with *err = EINVAL when it is not well formed, or ENOMEM. */
px_run_t *px_new(const void *plan, unsigned long long len, int *err);
/* Runs the parent lane, with its children. 0, or the errno; on failure everything made has been undone. */
int px_run(px_run_t *run, struct px_result *out);
/* fd becomes readable when the caller gives up: the wait that px_run is in, or comes to next, then ends with ECANCELED, and all is undone.
 * So does the undoing itself not wait for ever: what was killed has 10 s to end. fd stays the caller's and is never read; -1: none. It may be an
 * eventfd, a pipe, or px_signals(). The steps between two waits are not cut short, and nothing is behind the last one: then px_run succeeds. */
void px_set_cancel(px_run_t *run, int fd);
/* A descriptor that is readable while one of these signals (bit n-1: signal n) is pending; they must be blocked, and stay pending. Or -errno. */
int px_signals(unsigned long long mask);
/* For a plan without CLONE3: the pid that PID_MARK stands for. */
void px_set_pid(px_run_t *run, int pid);
/* Puts a copy of the descriptor into a slot before the plan runs: what the caller holds and the plan is about. 0, or the errno. */
int px_set_slot(px_run_t *run, unsigned int slot, int fd);
/* Kills the child and runs the undo lane: for a caller that gives up at a YIELD. */
void px_undo(px_run_t *run, struct px_result *out);
/* The descriptor in a slot, -1 if none; 0xffffffff: the pidfd of the child. It stays the run's. */
int px_slot(px_run_t *run, unsigned int slot);
/* Nanoseconds step took, plus one; 0 if it did not run or the plan is not traced. */
unsigned long long px_took(px_run_t *run, unsigned int step);
/* The memfd in which a traced plan's times are, a u64 a step; it stays the run's. -1. */
int px_trace(px_run_t *run);
void px_free(px_run_t *run);
/* Forgets the init's image, which one process keeps open for all its plans: for one that makes no more containers. */
void px_drop_image(void);
/* Loads it ahead, for the first plan. A failure is that plan's. */
void px_load_image(const char *path);

#endif
