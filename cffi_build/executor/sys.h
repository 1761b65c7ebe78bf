/* System calls without a C library: raw stubs that return -errno, for x86_64 and aarch64.
 *
 * pyrun-init and the launcher are freestanding (a static glibc program parks at twice the memory and starts slower), and the
 * executor runs the same code in the child of a vfork inside the Python process, where libc's state must not be touched.
 * So no file of ours that includes this header includes a libc header.
 */
#ifndef PYRUN_SYS_H
#define PYRUN_SYS_H

#include <asm/unistd.h>
#include <asm/poll.h>
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/ioctl.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mount.h>
#include <linux/netlink.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/stat.h>
#include <linux/un.h>
#include <linux/wait.h>
#include "wire.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#define PX_SIGKILL 9
#define PX_SIGCHLD 17
#define AF_UNIX_ 1
#define AF_NETLINK_ 16
#define SOCK_STREAM_ 1
#define SOCK_DGRAM_ 2
#define SOCK_RAW_ 3
#define SOCK_SEQPACKET_ 5
#define SOCK_CLOEXEC_ 02000000
#define SOL_SOCKET_ 1
#define SCM_RIGHTS_ 1
#define SCM_CREDENTIALS_ 2
#define SO_PASSCRED_ 16
#define MNT_DETACH_ 2

typedef __SIZE_TYPE__ usize;
#ifndef NULL
#define NULL ((void *)0)
#endif

struct px_iovec { void *base; usize len; };
struct px_msghdr { void *name; i32 namelen; i32 pad; struct px_iovec *iov; usize iovlen; void *control; usize controllen; u32 flags; u32 pad2; };
struct px_cmsg { usize len; i32 level, type; i32 fd; i32 pad; };
struct px_ucred_cmsg { usize len; i32 level, type; i32 pid; u32 uid, gid, pad; };
struct px_timespec { i64 sec, nsec; };
struct px_flock { short type, whence; i64 start, len; int pid; };
struct px_sigaction { void *handler; unsigned long flags; void *restorer; u64 mask; };
struct px_winsize { u16 row, col, xpixel, ypixel; };

#if defined(PX_DRY)
/* The fuzzer's kernel (hosted/fuzz.c). */
long sc6(long n, long a, long b, long c, long d, long e, long f);
long clone_call(long nr, long a, long b, long c, int (*fn)(void *), void *arg);
#elif defined(__x86_64__)
static inline long sc6(long n, long a, long b, long c, long d, long e, long f)
{
	long r;
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
}

/* clone3(a, b), or clone(a, b, c), with CLONE_VM: the child runs fn(arg) on a stack of its own and exits with what it returns. */
static inline long clone_call(long nr, long a, long b, long c, int (*fn)(void *), void *arg)
{
	long r;
	register void *r8 __asm__("r8") = (void *)fn, *r9 __asm__("r9") = arg;
	__asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tmov %%r9, %%rdi\n\tcall *%%r8\n\t"
			 "mov %%eax, %%edi\n\tmov %[nr], %%eax\n\tsyscall\n\thlt\n1:"
			 : "=a"(r) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r8), "r"(r9), [nr] "i"(__NR_exit)
			 : "rcx", "r11", "memory");
	return r;
}
#elif defined(__aarch64__)
static inline long sc6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

static inline long clone_call(long nr, long a, long b, long c, int (*fn)(void *), void *arg)
{
	register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = (long)fn, x4 __asm__("x4") = (long)arg;
	__asm__ volatile("svc 0\n\tcbnz x0, 1f\n\tmov x29, xzr\n\tmov x0, x4\n\tblr x3\n\tmov x8, %[nr]\n\tsvc 0\n1:"
			 : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), [nr] "i"(__NR_exit) : "memory", "x30");
	return x0;
}
#else
#error "pyrun builds on x86_64 and aarch64"
#endif

/* Runs on our memory but on a stack of its own: ASan would keep marks of frames that never return. */
#ifdef __SANITIZE_ADDRESS__
#define PX_CHILD __attribute__((no_sanitize_address, noinline))
#else
#define PX_CHILD
#endif

#define L(x) ((long)(x))
#define clone3_call(args, size, fn, arg) clone_call(__NR_clone3, L(args), L(size), 0, fn, arg)
#define sc0(n) sc6(n, 0, 0, 0, 0, 0, 0)
#define sc1(n, a) sc6(n, L(a), 0, 0, 0, 0, 0)
#define sc2(n, a, b) sc6(n, L(a), L(b), 0, 0, 0, 0)
#define sc3(n, a, b, c) sc6(n, L(a), L(b), L(c), 0, 0, 0)
#define sc4(n, a, b, c, d) sc6(n, L(a), L(b), L(c), L(d), 0, 0)
#define sc5(n, a, b, c, d, e) sc6(n, L(a), L(b), L(c), L(d), L(e), 0)

static inline long sys_read(int fd, void *p, usize n) { return sc3(__NR_read, fd, p, n); }
static inline long sys_write(int fd, const void *p, usize n) { return sc3(__NR_write, fd, p, n); }
static inline long sys_close(int fd) { return sc1(__NR_close, fd); }
static inline long sys_openat(int d, const char *p, int fl, int mode) { return sc4(__NR_openat, d, p, fl, mode); }
static inline long sys_fcntl(int fd, int cmd, long arg) { return sc3(__NR_fcntl, fd, cmd, arg); }
static inline long sys_dup3(int a, int b, int fl) { return sc3(__NR_dup3, a, b, fl); }
static inline long sys_ioctl(int fd, unsigned long r, void *p) { return sc3(__NR_ioctl, fd, r, p); }
static inline long sys_statx(int d, const char *p, int fl, u32 mask, struct statx *s) { return sc5(__NR_statx, d, p, fl, mask, s); }
static inline long sys_pipe2(int *p, int fl) { return sc2(__NR_pipe2, p, fl); }
static inline long sys_kill(int pid, int sig) { return sc2(__NR_kill, pid, sig); }
static inline long sys_wait4(int pid, int *st, int fl) { return sc4(__NR_wait4, pid, st, fl, 0); }
static inline long sys_pidfd_open(int pid) { return sc2(__NR_pidfd_open, pid, 0); }
static inline long sys_pidfd_send_signal(int fd, int sig) { return sc4(__NR_pidfd_send_signal, fd, sig, 0, 0); }
static inline long sys_close_range(u32 a, u32 b, u32 fl) { return sc3(__NR_close_range, a, b, fl); }
static inline long sys_memfd_create(const char *n, u32 fl) { return sc2(__NR_memfd_create, n, fl); }
static inline long sys_mmap(void *a, usize n, int prot, int fl, int fd) { return sc6(__NR_mmap, L(a), L(n), prot, fl, fd, 0); }
static inline long sys_munmap(void *a, usize n) { return sc2(__NR_munmap, a, n); }
static inline long sys_execveat(int d, const char *p, char *const *av, char *const *ev, int fl) { return sc5(__NR_execveat, d, p, av, ev, fl); }
static inline long sys_prctl(long a, long b, long c, long d, long e) { return sc5(__NR_prctl, a, b, c, d, e); }
static inline long sys_poll(struct pollfd *p, u32 n, i64 ms)
{
	struct px_timespec t = { ms / 1000, (ms % 1000) * 1000000 };
	return sc5(__NR_ppoll, p, n, ms < 0 ? NULL : &t, 0, 0);
}
static inline long sys_now(void)
{
	struct px_timespec t;
	sc2(__NR_clock_gettime, 1, &t);
	return t.sec * 1000000000L + t.nsec;
}
/* A seccomp profile may refuse the call; a fault of its own ends even process 1. */
static inline void __attribute__((noreturn)) sys_exit(int code)
{
	sc1(__NR_exit_group, code);
	__builtin_trap();
}
static inline void sys_sigmask(u64 *set, u64 *old) { sc4(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, set, old, 8); }

/* openat2 that retries EAGAIN: a rename or mount raced with a ".." of a scoped walk (openat2(2)). */
static inline long sys_openat2(int d, const char *p, u64 fl, u64 mode, u64 resolve)
{
	struct open_how how = { .flags = fl, .mode = mode, .resolve = resolve };
	long r = -EAGAIN;
	for (int i = 0; i < 128 && r == -EAGAIN; i++)
		r = sc4(__NR_openat2, d, p, &how, sizeof how);
	return r;
}

/* Writes v in decimal, ended by NUL; the place of that. */
static inline char *px_num(char *p, u64 v)
{
	char tmp[20];
	int n = 0;
	do
		tmp[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		*p++ = tmp[--n];
	*p = 0;
	return p;
}

#endif
