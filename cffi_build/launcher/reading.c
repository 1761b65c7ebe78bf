/* What the launcher reads, and how: strings, the environment, small files, the words of a command line. */
#include "launcher.h"
#include "steps.h"

char **environment;

int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

int starts(const char *text, const char *with)
{
	while (*with)
		if (*text++ != *with++)
			return 0;
	return 1;
}

/* Appends text; NULL when it does not fit before end. A NULL `to` stays one, so that calls can be chained. */
char *join(char *to, const char *end, const char *text)
{
	while (to && *text)
		if (to + 1 < end)
			*to++ = *text++;
		else
			to = NULL;
	if (to)
		*to = 0;
	return to;
}

const char *get_env(const char *name)
{
	for (char **e = environment; *e; e++)
		if (starts(*e, name) && (*e)[px_len(name)] == '=')
			return *e + px_len(name) + 1;
	return NULL;
}

/* A file of /proc and the like, in one read; ends with a NUL. */
long read_small(const char *path, char *buf, usize size)
{
	long fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0), n;
	if (fd < 0)
		return fd;
	n = sys_read((int)fd, buf, size - 1);
	sys_close((int)fd);
	if (n >= 0)
		buf[n] = 0;
	return n;
}

/* A whole regular file; it stays in memory. 0, or -1: it can't be read, or is longer than `most`, or OURS and others may have written it. */
int read_file(int dir, const char *path, usize most, int whose, struct bytes *out)
{
	struct statx st;
	long fd = sys_openat(dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0), n;
	if (fd < 0)
		return -1;
	if (sys_statx((int)fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) < 0 || (st.stx_mode & S_IFMT) != S_IFREG || st.stx_size > most ||
	    (whose == OURS && ((st.stx_mode & 022) || st.stx_uid != (u32)sc0(__NR_geteuid)))) {
		sys_close((int)fd);
		return -1;
	}
	long mem = sys_mmap(NULL, st.stx_size + 8, 3, 0x22 /* PRIVATE|ANONYMOUS */, -1);
	if (mem < 0 && mem > -4096)
		return -1;
	out->p = (u8 *)mem;
	for (out->n = 0; (n = sys_read((int)fd, out->p + out->n, st.stx_size + 1 - out->n)) > 0 && out->n <= st.stx_size;)
		out->n += (usize)n;
	sys_close((int)fd);
	return n == 0 && out->n == st.stx_size ? 0 : -1;
}

int is_id(const char *id)
{
	usize n = 0;
	for (; id[n]; n++) {
		char c = id[n];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '+' || c == '-' || c == '.'))
			return 0;
	}
	return n && n < 256 && !same(id, ".") && !same(id, "..");
}

/* Absolute, not /, and written as Python would write it: no //, no . or .., no slash at its end. */
int is_clean(const char *p)
{
	if (*p != '/' || !p[1] || px_len(p) > 3000)
		return 0;
	for (; *p; p++)
		if (*p == '/' && (!p[1] || p[1] == '/' || (p[1] == '.' && (!p[2] || p[2] == '/' || (p[2] == '.' && (!p[3] || p[3] == '/'))))))
			return 0;
	return 1;
}

/* The log that was asked for is made, and must be writable, though only errors go there and these are Python's. */
int log_ok(const struct call *c)
{
	if (c->log_format && !same(c->log_format, "text") && !same(c->log_format, "json"))
		return 0;
	if (!c->log || !*c->log)
		return 1;
	long fd = sys_openat(AT_FDCWD, c->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd >= 0)
		sys_close((int)fd);
	return fd >= 0;
}
