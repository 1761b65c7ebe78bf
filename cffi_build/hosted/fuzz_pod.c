/* The fuzzer of the supervisor's decoder and of its log writer: libFuzzer drives the real sources, whose kernel is below.
 *
 * The first byte says which. A message: whatever the decoder takes has a name that is a file's below exits/, and strings that end. A log: the
 * rest are acts (a read of so many bytes, a disk with so much room, a new log, time that passes), and at the end what the logs hold must be
 * entries, and without a loss give back what was written, byte for byte.
 */
#define PX_DRY 1
#include "../pod/message.c"
#include "../pod/stamp.c"
#include "../pod/log.c"

void *malloc(usize n);
void free(void *p);
void abort(void);
int memcmp(const void *a, const void *b, usize n);
int printf(const char *format, ...);

#define FILES 64
#define WROTE (1 << 20)
struct ctr ctrs[CTRS];
struct call calls[CALLS];
long next_timer = NEVER;
int adjust;
static struct { char *p; usize n, room; } files[FILES];
static char *wrote[2], *text[2];
static usize wrote_n[2];
static long room, now_ns;
static const u8 *bytes;
static usize left;
static int mapped, answered, told_exit, watched[2];

static void die(const char *why)
{
	printf("%s\n", why);
	abort();
}

static u32 take(void)
{
	if (!left)
		return 0;
	left--;
	return *bytes++;
}

/* ---- the kernel: descriptors 10 and 11 are the streams, 20 and up the logs */

static long fake_read(int fd, char *to, usize n)
{
	usize want = take() | take() << 8;
	const int s = fd - 10;
	want = want > n ? n : want > left ? left : want;
	if (!want)
		return -EAGAIN;
	for (usize i = 0; i < want; i++) {
		to[i] = (char)*bytes++;
		if (wrote_n[s] < WROTE)
			wrote[s][wrote_n[s]++] = to[i];
	}
	left -= want;
	return (long)want;
}

static long fake_write(int fd, const char *p, usize n)
{
	const int f = fd - 20;
	if (f < 0 || f >= FILES)
		die("a write to no log");
	if (!room)
		return -ENOSPC;
	const usize most = (usize)room < n ? (usize)room : n;
	if (files[f].n + most > files[f].room) {
		char *grown = malloc(files[f].room = 2 * (files[f].n + most));
		for (usize i = 0; i < files[f].n; i++)
			grown[i] = files[f].p[i];
		free(files[f].p);
		files[f].p = grown;
	}
	for (usize i = 0; i < most; i++)
		files[f].p[files[f].n + i] = p[i];
	files[f].n += most;
	room -= (long)most;
	return (long)most;
}

long sc6(long nr, long a, long b, long c, long d, long e, long f)
{
	(void)d, (void)e, (void)f;
	switch (nr) {
	case __NR_read: return fake_read((int)a, (char *)b, (usize)c);
	case __NR_write: return fake_write((int)a, (const char *)b, (usize)c);
	case __NR_munmap:
		mapped--;
		free((void *)a);
		return 0;
	case __NR_clock_gettime:
		((struct px_timespec *)b)->sec = now_ns / 1000000000;
		((struct px_timespec *)b)->nsec = now_ns % 1000000000;
		return 0;
	default: return 0;
	}
}

long mem_map(usize n)
{
	mapped++;
	return (long)malloc(n);
}
u64 wall_ns(void) { return 1795737600000000000ULL + (u64)now_ns; }
void shut(int *fd) { *fd = -1; }
long watch(int fd, enum watched what, u32 index, u32 sub)
{
	(void)what, (void)index;
	if (fd != 10 + (int)sub)
		die("a watch of another");
	return watched[sub] = 1, 0;
}
void unwatch(int fd)
{
	if (fd == 10 || fd == 11)
		watched[fd - 10] = 0;
}
long reply(int fd, enum pod_kind kind, i32 err, i64 value, i32 pid)
{
	(void)fd, (void)kind, (void)err, (void)value, (void)pid;
	return answered++, 0;
}
void end_call(struct call *c) { c->use = CALL_FREE; }
void tee(struct ctr *c, u8 number, const char *data, usize n) { (void)c, (void)number, (void)data, (void)n; }
void cut_all(struct ctr *c) { (void)c; }
void tell_exit(const struct ctr *c) { told_exit += c == ctrs; }

/* ---- what must hold */

static usize spell(const char *p, const char *word)
{
	usize i = 0;
	while (word[i] && p[i] == word[i])
		i++;
	return word[i] ? 0 : i;
}

/* Reads a log whole; the text of each stream goes behind `to`. */
static void check_entries(const char *p, usize n, char **to, usize *to_n)
{
	while (n) {
		const usize end = line_end(p, n);
		if (end == n || n < STAMP + 10 || p[STAMP] != ' ' || p[4] != '-' || p[29] != 'Z')
			die("no entry");
		const int s = spell(p + STAMP, " stdout ") ? 0 : spell(p + STAMP, " stderr ") ? 1 : 2;
		const char tag = p[STAMP + 8];
		if (s == 2 || (tag != 'P' && tag != 'F') || p[STAMP + 9] != ' ' || end - STAMP - 10 > LINE)
			die("not an entry");
		for (usize i = STAMP + 10; i < end; i++)
			to[s][to_n[s]++] = p[i];
		if (tag == 'F')
			to[s][to_n[s]++] = '\n';
		p += end + 1;
		n -= end + 1;
	}
}

static void check_log(const struct ctr *c)
{
	usize n[2] = { 0, 0 };
	u64 all = 0;
	for (int f = 0; f < FILES; f++) {
		all += files[f].n;
		if (!c->k.lost_bytes)
			check_entries(files[f].p, files[f].n, text, n);
	}
	if (all != c->k.log_bytes)
		die("another count of bytes");
	for (int s = 0; !c->k.lost_bytes && s < 2; s++)
		if (n[s] != wrote_n[s] || memcmp(text[s], wrote[s], n[s]))
			die("another text");
}

static void act(struct ctr *c, u32 what, int *log)
{
	struct stream *s = c->out + (what & 1);
	switch (what >> 1 & 7) {
	case 0: case 1: case 2: case 3:
		if (watched[s - c->out] && !c->pend)
			log_read(c, s);
		return;
	case 4: room = (long)take() << 6; return;
	case 5: room = NEVER; return;
	case 6:
		if (*log < FILES - 1) {
			calls[0] = (struct call){ .use = CALL_NEW };
			log_switch(c, 20 + ++*log, calls);
		}
		return;
	default:
		now_ns += (long)take() * 20 * MS;
		log_timers(c, now_ns);
	}
}

static void run_log(void)
{
	struct ctr *c = ctrs;
	int log = 0, guard = 0;
	*c = (struct ctr){ .k = { .state = POD_LIVE, .name = "c" }, .input = -1, .oom = -1, .exit = -1, .log = 20, .next_log = -1, .log_call = -1,
			   .switch_by = NEVER, .drain_by = NEVER, .blocked = NEVER, .retry_at = NEVER, .patience = (long)take() * 10 * MS };
	c->out[0].fd = 10;
	c->out[1].fd = 11;
	watched[0] = watched[1] = 1;
	room = NEVER;
	now_ns = answered = told_exit = 0;
	wrote_n[0] = wrote_n[1] = 0;
	while (left && guard++ < 4096)
		act(c, take(), &log);
	room = room ? NEVER : 0;
	c->k.state = POD_ENDED;
	c->drain_by = now_ns + 1000 * MS;
	now_ns += 1000 * MS;
	log_timers(c, now_ns);
	log_done(c);
	if (told_exit != 1 || c->log >= 0 || c->pend || c->next_log >= 0 || mapped)
		die("not at its end");
	check_log(c);
	for (int f = 0; f < FILES; f++) {
		free(files[f].p);
		files[f].p = NULL;
		files[f].n = files[f].room = 0;
	}
}

static void run_message(void)
{
	struct pod_request *r = malloc(sizeof *r); /* as long as a message may be: ASan sees its end */
	const u32 fds = take() % 6;
	const usize n = left < sizeof *r + 1 ? left : sizeof *r + 1;
	for (usize i = 0; i < n && i < sizeof *r; i++)
		((u8 *)r)[i] = bytes[i];
	if (pod_check(r, (long)n, fds) == 0) {
		if (r->name[0] == '.' || line_end(r->name, POD_NAME) < POD_NAME || r->name[POD_NAME - 1] || fds > POD_FDS)
			die("a bad name");
		usize i = 0;
		while (r->name[i])
			if (r->name[i++] == '/')
				die("a path");
		for (i = 0; r->path[i];)
			i++;
	}
	free(r);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
	if (!wrote[0]) {
		wrote[0] = malloc(WROTE);
		wrote[1] = malloc(WROTE);
		text[0] = malloc(2 * WROTE);
		text[1] = malloc(2 * WROTE);
	}
	bytes = data;
	left = size > WROTE / 2 ? WROTE / 2 : size;
	if (take() & 1)
		run_message();
	else
		run_log();
	return 0;
}
