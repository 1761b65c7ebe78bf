/* What the lanes share: the context of a running plan, and the functions behind its steps. */
#ifndef PYRUN_STEPS_H
#define PYRUN_STEPS_H

#include "sys.h"

struct px_ctx {
	const u8 *plan;
	const struct px_header *h;
	i32 *slots;
	u8 *made;              /* per step: it created something that was not there (what an undo step is guarded by) */
	u64 *trace;            /* per step: nanoseconds it took, plus one; NULL without PX_TRACE */
	int sync;              /* the sync socket, or after PARK the status FIFO */
	int parked;            /* past PARK: nobody answers a rendezvous any more */
	i32 stage1, pidfd, pid;    /* parent: stage 1 and its pidfd; both: the container's pid as the host sees it */
	i32 self;              /* stage 2: the same as it sees itself; kept, for behind seccomp it may not ask */
	i32 cancel;            /* parent: readable when the caller gives up; -1: never */
	i32 listener;          /* number of the seccomp listener in the child */
	u32 lane, step, substep;   /* where we are; substep counts the system calls of one step */
	i32 err, yielded;
	u32 text_len;
	char text[PX_TEXT];
	char exec_path[4096];
	char home[4096];
	char **argv, **envp;   /* what EXECVE will pass on */
	u64 envc;              /* strings in envp; there is room for HOME behind them */
	struct px_msg msg;     /* the one in flight: larger than a page, so not on the stack */
	int in_cwd;            /* a CHDIR has succeeded */
	long late;             /* what a late CHDIR or FIND_EXECUTABLE met, and EXECVE fails with: -errno, 0: nothing */
	u32 late_substep;      /* then: 1 the working directory, 2 the program */
	int fresh;             /* the last MAKE_TARGET made what it opened */
	int keep;              /* descriptors below this number belong to the user's process */
};

#define IN_ROOT (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

/* interp.c */
long px_check(const void *plan, u64 len);
long px_run_step(struct px_ctx *x, const struct px_step *s);
long px_lane(struct px_ctx *x, u32 lane, u32 from);
/* cgroup.c, in the parent only */
long do_save_cgroup(struct px_ctx *x, const struct px_step *s);
long do_check_empty(struct px_ctx *x, const struct px_step *s);
long do_remove_cgroup(struct px_ctx *x, const struct px_step *s);
/* parent.c. Clock ticks since boot at which pid began; proc: a descriptor of /proc. */
long px_start_time(int proc, i32 pid, u64 *ticks);
/* parent.c or init.c: the steps that only one side has. */
long px_side_step(struct px_ctx *x, const struct px_step *s);

static inline const char *px_str(struct px_ctx *x, u32 off) { return off ? (const char *)x->plan + off : ""; }
static inline int px_fd(struct px_ctx *x, u16 slot) { return slot == PX_NONE ? AT_FDCWD : x->slots[slot]; }
static inline const char *px_path(struct px_ctx *x, u32 off) { return px_str(x, off); }
/* A device's number as mknod(2) takes it. */
static inline u64 px_dev(u64 major, u64 minor) { return (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~0xffULL) << 12 | (major & ~0xfffULL) << 32; }
/* Whether `need` bytes at offset `at` lie in a string of n: the place of a pid or a descriptor that is filled in. */
static inline int px_room(u64 at, u64 need, u32 n) { return at != PX_NEXT && n >= need && at <= n - need; }
/* ctx.c */
void px_say(struct px_ctx *x, const char *s, usize n);
long px_send_msg(struct px_ctx *x, u32 kind, i32 value, u32 substep);
long px_write_all(int fd, const char *p, usize n);
char **px_vector(const char *p, u32 len, u64 count, u32 more);
void px_vector_free(char **v, u64 count, u32 more);
long px_out(struct px_ctx *x, u16 slot, long fd);
/* Whether the directory or file in a slot still has a name: 0 once somebody has removed it. No slot, or one never opened: yes. */
int px_linked(struct px_ctx *x, u16 slot);
/* poll(2) of n descriptors, 2 at most. -ECANCELED: the caller gives up, and none of them has anything: what has happened, an exec say, is not
 * denied. -ETIMEDOUT: ms have passed (0: no end). */
long px_wait(struct px_ctx *x, struct pollfd *f, u32 n, u64 ms);
/* Reaps a child that ends, or was killed. One that sleeps in the kernel for 10 s more is left behind: -ETIMEDOUT. pidfd: its, or -1. */
long px_reap(i32 pid, int pidfd, i32 *status);
usize px_len(const char *s);
#define PX_NUM 24              /* room for any number and its NUL: a negative one is a large one */

/* SIGPIPE held back, in this thread alone, and let go; broken: a write has said EPIPE, and the signal that came with it is taken away. */
#define PX_SIGPIPE_BIT (1ULL << 12)
static inline u64 px_sigpipe_off(void)
{
	const u64 pipe = PX_SIGPIPE_BIT;
	u64 old = PX_SIGPIPE_BIT;
	sc4(__NR_rt_sigprocmask, 0 /* SIG_BLOCK */, &pipe, &old, 8);
	return old;
}
static inline void px_sigpipe_back(u64 old, int broken)
{
	const u64 pipe = PX_SIGPIPE_BIT;
	const struct px_timespec now = { 0, 0 };
	if (broken && !(old & PX_SIGPIPE_BIT))
		sc4(__NR_rt_sigtimedwait, &pipe, 0, &now, 8);
	sys_sigmask(&old, NULL);
}

/* steps_fs.c */
long do_openat2(struct px_ctx *x, const struct px_step *s);
long do_mkdirat(struct px_ctx *x, const struct px_step *s);
long do_mknodat(struct px_ctx *x, const struct px_step *s);
long do_symlinkat(struct px_ctx *x, const struct px_step *s);
long do_unlinkat(struct px_ctx *x, const struct px_step *s);
long do_write_file(struct px_ctx *x, const struct px_step *s);
long do_create_file(struct px_ctx *x, const struct px_step *s);
long do_fchownat(struct px_ctx *x, const struct px_step *s);
long do_setxattr(struct px_ctx *x, const struct px_step *s);
long do_mkfifoat(struct px_ctx *x, const struct px_step *s);
long do_check_type(struct px_ctx *x, const struct px_step *s);
long do_check_device(struct px_ctx *x, const struct px_step *s);
long do_check_fs(struct px_ctx *x, const struct px_step *s);
long do_check_ns(struct px_ctx *x, const struct px_step *s);
/* steps_mount.c */
long do_open_tree(struct px_ctx *x, const struct px_step *s);
long do_move_mount(struct px_ctx *x, const struct px_step *s);
long do_mount_setattr(struct px_ctx *x, const struct px_step *s);
long do_fsopen(struct px_ctx *x, const struct px_step *s);
long do_fsconfig(struct px_ctx *x, const struct px_step *s);
long do_fsmount(struct px_ctx *x, const struct px_step *s);
long do_mount(struct px_ctx *x, const struct px_step *s);
long do_make_target(struct px_ctx *x, const struct px_step *s);
long do_copy_up(struct px_ctx *x, const struct px_step *s);
long do_tmpfs_mode(struct px_ctx *x, const struct px_step *s);
long do_make_userns(struct px_ctx *x, const struct px_step *s);
/* steps_root.c */
long do_chroot(struct px_ctx *x, const struct px_step *s);
long do_pivot_root(struct px_ctx *x, const struct px_step *s);
long do_umount(struct px_ctx *x, const struct px_step *s);
long do_chdir(struct px_ctx *x, const struct px_step *s);
/* steps_proc.c */
long do_setres(struct px_ctx *x, const struct px_step *s);
long do_capbset(struct px_ctx *x, const struct px_step *s);
long do_capset(struct px_ctx *x, const struct px_step *s);
long do_ambient(struct px_ctx *x, const struct px_step *s);
long do_seccomp(struct px_ctx *x, const struct px_step *s);
long do_setrlimit(struct px_ctx *x, const struct px_step *s);
long do_find_executable(struct px_ctx *x, const struct px_step *s);
long px_late(struct px_ctx *x, long r, u32 substep);
long do_set_home(struct px_ctx *x, const struct px_step *s);
long do_execve(struct px_ctx *x, const struct px_step *s);
long do_fchown_stdio(struct px_ctx *x, const struct px_step *s);
long do_close_fds(struct px_ctx *x, const struct px_step *s);
/* steps_io.c */
long px_vfork(int (*fn)(void *), void *arg, u64 flags, int cgroup, i32 *pidfd);
long do_spawn(struct px_ctx *x, const struct px_step *s);
long do_bpf_prog_load(struct px_ctx *x, const struct px_step *s);
long do_bpf_prog_attach(struct px_ctx *x, const struct px_step *s);
long do_netlink(struct px_ctx *x, const struct px_step *s);
long do_openpt(struct px_ctx *x, const struct px_step *s);
long do_send_fd(struct px_ctx *x, const struct px_step *s);
long do_set_stdio(struct px_ctx *x, const struct px_step *s);
long do_connect(struct px_ctx *x, const struct px_step *s);
long do_bind(struct px_ctx *x, const struct px_step *s);
long do_receive_fd(struct px_ctx *x, const struct px_step *s);
long do_tty_output(struct px_ctx *x, const struct px_step *s);

#endif
