/* The decoder of requests. Pure: hosted/fuzz_pod.c runs it alone. */
#include "message.h"

u32 pod_sum(const void *p, usize n)
{
	u32 sum = 2166136261u;
	for (usize i = 0; i < n; i++)
		sum = (sum ^ ((const u8 *)p)[i]) * 16777619u;
	return sum;
}

static int is_empty(const char *name)
{
	usize n = 0;
	while (n < POD_NAME && !name[n])
		n++;
	return n == POD_NAME;
}

/* A file name below exits/: no separator, no dot in front, NULs behind it. */
static int is_name(const char *name)
{
	usize n = 0;
	for (; n < POD_NAME && name[n]; n++) {
		const char c = name[n];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || (c == '.' && n) ||
		      (c == '+' && n)))
			return 0;
	}
	if (!n || n > 64)
		return 0;
	while (n < POD_NAME && !name[n])
		n++;
	return n == POD_NAME;
}

static int fds_wanted(const struct pod_request *r)
{
	switch (r->kind) {
	case POD_CREATE: return r->flags & POD_HAS_LOG ? 2 : 1;
	case POD_EXEC: return r->flags & POD_TTY ? 2 : 4;
	case POD_LOG: return 1;
	default: return 0;
	}
}

long pod_check(struct pod_request *r, long n, u32 fds)
{
	if (n < (long)POD_HEAD || n > (long)sizeof *r)
		return -EMSGSIZE;
	if (r->magic != POD_MAGIC || !r->kind || r->kind >= POD_KINDS)
		return -EPROTO;
	((char *)r)[n == (long)sizeof *r ? n - 1 : n] = 0;
	const int named = r->kind != POD_HELLO && r->kind != POD_END && r->kind != POD_EVENTS && r->kind != POD_GO;
	if (!(named ? is_name(r->name) : is_empty(r->name)))
		return -EINVAL;
	if (r->flags & ~(r->kind == POD_CREATE ? POD_FLAGS | ~0u << POD_LOG_RATE : r->kind == POD_EXEC ? POD_TTY : 0))
		return -EINVAL;
	return fds == (u32)fds_wanted(r) ? 0 : -EBADF;
}
