/* The plan's wire format: what Python (pyrun/plan/model/plan.py) encodes and the executor, pyrun-init and the launcher read.
 *
 * One buffer: header, steps, rules, inherited slots, blob. All integers are little endian; all offsets are from the start of the
 * buffer; strings lie in the blob and end with a NUL that their length does not count. px_check() proves every offset before
 * anything is run. PX_VERSION, a digest of what plans mean, is the compiler's: build.py has it from plan.py. tests/unit/test_wire.py holds the numbers here against pyrun/plan/model/steps.py.
 */
#ifndef PYRUN_WIRE_H
#define PYRUN_WIRE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

#define PX_MAGIC 0x4e505950u /* "PYPN" */
#define PX_NONE 0xffffu        /* no slot */
#define PX_NEXT 0xffffffffu    /* rule target: take the errno as success and go on */
#define PX_ANY 0xffffu         /* rule errno: any */
#define PX_MAX_SLOTS 65000u
#define PX_TEXT 4096u          /* what a hook or helper said, at most */
#define PX_CGROUP_CLAIMED 1u   /* in a record, in place of the cgroup's inode: that of the root, which is nobody's */

enum px_lane { LANE_PARENT, LANE_STAGE1, LANE_STAGE2, LANE_UNDO, PX_LANES };

/* Plan flags. */
#define PX_TRACE 1u            /* keep the time each step took */

#define PX_UNTOLD 0x40000000u
#define PX_CLOSED 0x20000000u
#define PX_RULED 0x10000u

struct px_header {
	u32 magic, version, size, flags;
	u32 n_steps, steps;            /* count, offset of px_step[] */
	u32 n_rules, rules;            /* count, offset of px_rule[] */
	u32 n_inherit, inherit;        /* count, offset of u16[]: slots handed from the parent to stage 1 */
	u32 blob, blob_len;
	u32 n_slots;
	u32 lane_first[PX_LANES], lane_count[PX_LANES];
	u32 keep_fds;                  /* descriptors 0..keep_fds-1 stay with the user's process */
	/* Fault injection, honoured by test builds (-DPX_FAULTS) only; PX_NEXT: none. kill_step with PX_UNTOLD: not before that CLONE3_INIT,
	 * but when the child is made and nobody told; with PX_CLOSED, of an exec: it is not killed, but the socket closes some time before. fail_errno with PX_RULED: not past the step's rules, but as if the kernel had said it. */
	u32 fail_step, fail_errno, kill_step;
};

struct px_step {
	u16 op;
	u16 n_rules;
	u32 rules;                     /* index of its first rule */
	u16 in0, in1, in2, out;        /* slots */
	u64 a, b, c, d;
	u32 s0, n0, s1, n1, s2, n2;    /* strings */
};

struct px_rule {                       /* when the step fails with err, go to step `target` of the same lane */
	u16 err, pad;
	u32 target;
};

/* One message on the sync socket (SOCK_SEQPACKET), child to parent; the parent answers with one byte. */
enum px_msg_kind { MSG_MEET = 1, MSG_PID = 2, MSG_ERROR = 3 };
#define PX_UNKNOWN (-1)                /* an answer, instead of the pid */
#define PX_DIE (-2)                    /* value of a MSG_MEET, in test builds: kill me */
struct px_msg {
	u32 kind, lane, step, substep;
	i32 err;                       /* errno of MSG_ERROR */
	i32 value;                     /* MSG_MEET: which rendezvous, with a descriptor in substep; MSG_PID: the pid */
	u32 text_len;
	char text[PX_TEXT];
};

/* The operands behind each name are documented at its class in pyrun/plan/model/steps.py. */
enum px_op {
	OP_OPENAT2 = 1, OP_OPEN_TREE, OP_MOVE_MOUNT, OP_MOUNT_SETATTR, OP_FSOPEN, OP_FSCONFIG, OP_FSMOUNT, OP_MOUNT,
	OP_MAKE_TARGET, OP_MKDIRAT, OP_MKNODAT, OP_SYMLINKAT, OP_UNLINKAT, OP_WRITE_FILE, OP_CREATE_FILE, OP_COPY_UP, OP_CLOSE,
	OP_CHECK_TYPE, OP_CHECK_DEVICE, OP_CHECK_FS, OP_GOTO, OP_MKFIFOAT,
	OP_CLONE3, OP_CLONE3_INIT, OP_SETNS, OP_UNSHARE, OP_MEET, OP_AWAIT, OP_ACK, OP_AWAIT_PID, OP_SAVE_PID, OP_PIDFD_GETFD, OP_YIELD,
	OP_SETRESUID, OP_SETRESGID, OP_SETGROUPS, OP_SETHOSTNAME, OP_SETDOMAINNAME, OP_PIVOT_ROOT, OP_CHDIR, OP_SETSID, OP_UMASK,
	OP_PRCTL, OP_CAPBSET, OP_CAPSET, OP_AMBIENT, OP_SECCOMP, OP_SETRLIMIT, OP_PERSONALITY, OP_SCHED_SETATTR, OP_IOPRIO_SET,
	OP_SCHED_SETAFFINITY, OP_SET_MEMPOLICY, OP_KEYCTL_SESSION, OP_FIND_EXECUTABLE, OP_SET_HOME, OP_CLOSE_FDS, OP_PARK, OP_EXECVE,
	OP_SPAWN, OP_BPF_PROG_LOAD, OP_BPF_PROG_ATTACH, OP_NETLINK, OP_OPENPT, OP_SEND_FD, OP_SET_STDIO, OP_FCHOWN_STDIO, OP_CONNECT,
	OP_RELEASE, OP_WAIT_EXEC, 
	OP_CHECK_EMPTY, OP_REMOVE_CGROUP, OP_PID_FILE,
	OP_TMPFS_MODE, OP_CHROOT, OP_MAKE_USERNS,
	OP_PIDFD_OPEN, OP_DUP, OP_BIND, OP_CHECK_NS, OP_TTY_OUTPUT, OP_FCHOWNAT, OP_SETXATTR, OP_DUP3, OP_UMOUNT, OP_REAP, OP_SAVE_CGROUP,
	OP_RECEIVE_FD, OP_ADOPT_PID,
	OP_COUNT
};

#endif
