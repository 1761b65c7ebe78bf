"""The cffi module pyrun._seccomp: libseccomp as a compiler from rules to classic BPF. It never loads a filter.

seccomp_export_bpf_mem came with libseccomp 2.6; before it the program goes through a memfd. ``build.py`` compiles this.
"""

from __future__ import annotations

from cffi import FFI

CDEF = """
typedef void *scmp_filter_ctx;
struct scmp_version { unsigned int major; unsigned int minor; unsigned int micro; };
enum scmp_compare { SCMP_CMP_NE, ... };
struct scmp_arg_cmp { unsigned int arg; enum scmp_compare op; uint64_t datum_a; uint64_t datum_b; };

const struct scmp_version *seccomp_version(void);
int seccomp_api_set(unsigned int level);
uint32_t seccomp_arch_native(void);
scmp_filter_ctx seccomp_init(uint32_t def_action);
void seccomp_release(scmp_filter_ctx ctx);
int seccomp_arch_add(scmp_filter_ctx ctx, uint32_t arch_token);
int seccomp_arch_remove(scmp_filter_ctx ctx, uint32_t arch_token);
int seccomp_syscall_resolve_name_arch(uint32_t arch_token, const char *name);
int seccomp_rule_add_array(scmp_filter_ctx ctx, uint32_t action, int syscall, unsigned int arg_cnt,
                           const struct scmp_arg_cmp *arg_array);
int px_optimize(scmp_filter_ctx ctx);
int px_begin(scmp_filter_ctx ctx);
int px_commit(scmp_filter_ctx ctx);
long px_export(scmp_filter_ctx ctx, void *buffer, size_t size);
"""

SOURCE = """
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include <seccomp.h>

#define PX_SCMP_26 (SCMP_VER_MAJOR > 2 || (SCMP_VER_MAJOR == 2 && SCMP_VER_MINOR >= 6))

/* A binary tree over the system call numbers in place of a list. */
static int px_optimize(scmp_filter_ctx ctx) { return seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); }

/* All rules in one transaction: each one alone copies the whole filter first. */
static int px_begin(scmp_filter_ctx ctx)
{
#if PX_SCMP_26
	return seccomp_transaction_start(ctx);
#else
	(void)ctx;
	return 0;
#endif
}

static int px_commit(scmp_filter_ctx ctx)
{
#if PX_SCMP_26
	return seccomp_transaction_commit(ctx);
#else
	(void)ctx;
	return 0;
#endif
}

/* The program as an array of struct sock_filter: its size in bytes, or minus an errno. */
static long px_export(scmp_filter_ctx ctx, void *buffer, size_t size)
{
#if PX_SCMP_26
	int rc = seccomp_export_bpf_mem(ctx, buffer, &size);

	return rc < 0 ? rc : (long)size;
#else
	int fd = memfd_create("seccomp", MFD_CLOEXEC);
	long got;

	if (fd < 0)
		return -errno;
	got = seccomp_export_bpf(ctx, fd);
	if (got == 0) {
		off_t end = lseek(fd, 0, SEEK_END);

		if (end < 0 || (size_t)end > size)
			got = -E2BIG;
		else if (pread(fd, buffer, (size_t)end, 0) != end)
			got = -EIO;
		else
			got = (long)end;
	}
	close(fd);
	return got;
#endif
}
"""

ffibuilder = FFI()
ffibuilder.cdef(CDEF)
ffibuilder.set_source(
    "pyrun._seccomp",
    SOURCE,
    libraries=["seccomp"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"],
)
