/* The fuzzer of the plan decoder and of everything behind it: libFuzzer drives the real sources against a kernel that lies.
 *
 * The input is a plan, then bytes that decide what each system call answers (nothing left: it succeeds). Nothing leaves this process.
 * The kernel here reads what a real one would read, so that ASan sees a string without an end, and keeps books of descriptors: closing one
 * that is not open, or leaving one open behind px_free(), is a crash. Built twice: the parent lane, and with -DFUZZ_INIT stages 1 and 2.
 */
#define PX_DRY 1
#ifdef FUZZ_INIT
#include "../init/init.c"
#else
#include "../executor/parent.c"
#include "../executor/stage1.c"
#endif
#include "fuzz_kernel.h"

static struct px_ctx *running;

static const struct px_step *current(void)
{
	return running && running->h ? (const struct px_step *)(const void *)(running->plan + running->h->steps) + running->step : NULL;
}

/* The file that the running step wants to find. */
static void honest_statx(struct statx *st)
{
	const struct px_step *s = current();
	st->stx_mode = s && s->op == OP_CHECK_TYPE ? (u16)s->a : s && s->op == OP_CHECK_DEVICE ? S_IFCHR : S_IFDIR;
	if (s && s->op == OP_CHECK_DEVICE) {
		st->stx_rdev_major = (u32)s->a;
		st->stx_rdev_minor = (u32)s->b;
	}
}

static u64 honest_magic(void)
{
	const struct px_step *s = current();
	return !s ? 0 : s->op == OP_CHECK_FS ? s->a : s->op == OP_WRITE_FILE ? s->b : 0;
}

static i32 honest_sender(void)
{
	return running ? running->stage1 : 0;
}

/* What an honest child or parent would say next on the socket. */
static long honest_message(void *to, u64 n)
{
	const struct px_step *s = current();
	struct px_msg m = { .kind = MSG_MEET, .value = s ? (i32)s->a : 0 };
	u64 size = n < sizeof m - PX_TEXT ? n : sizeof m - PX_TEXT;
	if (n == 4) {
		kernel_copies(to, "\115\0\0", 4);
		return 4;
	}
	if (!s || s->op == OP_WAIT_EXEC)
		return 0;
	if (s->op == OP_AWAIT_PID) {
		m.kind = MSG_PID;
		m.value = 77;
	}
	kernel_copies(to, &m, size);
	return (long)size;
}

/* Steps whose strings are used as a whole; the others are known to px_check() as well. */
static void walk(const u8 *plan)
{
	const struct px_header *h = (const void *)plan;
	const struct px_step *s = (const void *)(plan + h->steps);
	const struct px_rule *rules = (const void *)(plan + h->rules);
	for (u32 i = 0; i < h->n_steps; i++) {
		kernel_reads(plan + s[i].s0, s[i].s0 ? (u64)s[i].n0 + 1 : 0);
		kernel_reads(plan + s[i].s1, s[i].s1 ? (u64)s[i].n1 + 1 : 0);
		kernel_reads(plan + s[i].s2, s[i].s2 ? (u64)s[i].n2 + 1 : 0);
		for (u32 k = 0; k < s[i].n_rules; k++)
			kernel_reads(rules + s[i].rules + k, sizeof *rules);
		for (u32 count = 0; s[i].s0 && count < 4; count++) {
			char **v = px_vector((const char *)plan + s[i].s0, s[i].n0, count, 1);
			for (u32 k = 0; v && k < count; k++)
				kernel_reads(v[k], px_len(v[k]) + 1);
			px_vector_free(v, count, 1);
		}
	}
}

#ifdef FUZZ_INIT
static void run_plan(const u8 *plan, u32 n)
{
	const struct px_header *h = (const void *)plan;
	char number[12];
	char *argv[3] = { (char *)"pyrun-init", number, NULL };
	int keep = (int)h->keep_fds;
	px_num(number, (u64)keep);
	kernel.plan = plan;
	kernel.plan_len = n;
	kernel.plan_fd = keep + 1;
	for (int fd = keep; fd < keep + 3 + (int)h->n_inherit && fd < MAX_FDS; fd++)
		kernel.open[fd] = 1;
	ctx = (struct px_ctx){ 0 };
	running = &ctx;
	if (!setjmp(kernel.exit))
		run(2, argv);
}
#else
static void run_plan(const u8 *plan, u32 n)
{
	static struct px_result out;
	px_run_t *r;
	running = NULL;
	int err, maps_before = kernel.maps;
	image_fd = -1;
	if (setjmp(kernel.exit))
		return;
	r = px_new(plan, n, &err);
	if (!r)
		return;
	running = &((struct px *)r)->x;
	if (take() & 1)
		px_set_pid(r, 4242);
	for (int i = 0; i < 4; i++) {
		px_run(r, &out);
		if (out.status != STATUS_YIELDED)
			break;
		if (take() & 1) {
			px_undo(r, &out);
			break;
		}
	}
	px_took(r, take());
	px_slot(r, take());
	px_free(r);
	if (image_fd >= 0)
		sys_close(image_fd);
	for (int fd = 0; fd < MAX_FDS; fd++)
		if (kernel.open[fd])
			die("a descriptor was left open", kernel.open_by[fd]);
	if (kernel.maps != maps_before)
		die("memory was left mapped", 0);
}
#endif

usize LLVMFuzzerMutate(u8 *data, usize size, usize most);

/* Mostly it is the kernel's answers that change, since few changes of a plan leave it well formed. */
usize LLVMFuzzerCustomMutator(u8 *data, usize size, usize most, unsigned seed)
{
	u32 n = 0;
	if (size >= sizeof(struct px_header))
		kernel_copies(&n, data + 8, 4);
	if (seed % 4 == 0 || n < sizeof(struct px_header) || n > size || n >= most)
		return LLVMFuzzerMutate(data, size, most);
	return n + LLVMFuzzerMutate(data + n, size - n, most - n < 2048 ? most - n : 2048);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
	static const u32 none = 0xffffffffu;
	u32 n = 0;
	reset(data, size);
	px_check(data, size);
	if (size < sizeof(struct px_header))
		return 0;
	kernel_copies(&n, data + 8, 4);
	if (n < sizeof(struct px_header) || n > size)
		n = (u32)size;
	/* A copy of exactly that size, so that ASan sees its end; with the words that a mutation must not break. */
	u8 *plan = fresh(n);
	kernel_copies(plan, data, n);
	struct px_header *h = (void *)plan;
	h->magic = PX_MAGIC;
	h->version = PX_VERSION;
	h->size = n;
	h->fail_step = h->kill_step = none;
	kernel.at = data + n;
	kernel.left = size - n;
	if (px_check(plan, n) == 0) {
		walk(plan);
		run_plan(plan, n);
	}
	forget_all();
	return 0;
}
