/* list, as pyrun/cli/commands/list.py prints it. One container that is not plain, and Python lists them all. */
#include "launcher.h"
#include "steps.h"

#define MOST 4096
#define COLUMNS 6
#define LEAST 12                   /* of a column's width, and what is between two: as columns() of pyrun/cli/output.py */
#define GAP 3
#define DT_DIR 4
#define DT_REG 8

struct dirent { u64 ino; i64 off; u16 len; u8 type; char name[]; };
struct text { char *at, *end; };

static char names_room[1 << 18], cells_room[1 << 20], out_room[1 << 22];
static const char *names[MOST];
static const char *rows[MOST + 1][COLUMNS];

/* Puts a name where it belongs among the first n, by its bytes. */
static void sort_in(const char *name, int n)
{
	for (; n > 0; n--) {
		const u8 *a = (const u8 *)names[n - 1], *b = (const u8 *)name;
		while (*a && *a == *b)
			a++, b++;
		if (*a <= *b)
			break;
		names[n] = names[n - 1];
	}
	names[n] = name;
}

/* The number of containers below root, by their names; -1: Python's. */
static int read_names(const char *root)
{
	static u8 buf[1 << 15] __attribute__((aligned(8)));
	struct text t = { names_room, names_room + sizeof names_room };
	int count = 0;
	long n, fd = sys_openat(AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	while ((n = sc3(__NR_getdents64, fd, buf, sizeof buf)) > 0)
		for (long at = 0; at < n;) {
			const struct dirent *d = (const void *)(buf + at);
			at += d->len;
			if (!is_id(d->name) || d->type == DT_REG)
				continue;
			char *name = t.at, *end = join(t.at, t.end, d->name);
			if (d->type != DT_DIR || !end || end + 1 >= t.end || count == MOST)
				return -1;
			t.at = end + 1;
			sort_in(name, count++);
		}
	sys_close((int)fd);
	return n < 0 ? -1 : count;
}

/* Its width is its length: what is not plain ASCII is Python's to measure. */
static const char *cell(struct text *t, const char *value)
{
	char *start = t->at, *end = join(t->at, t->end, value);
	for (const char *p = value; *p; p++)
		if (*p < ' ' || *p > '~')
			return NULL;
	if (!end || end + 1 >= t->end)
		return NULL;
	t->at = end + 1;
	return start;
}

static int read_row(struct text *t, const struct record *r, enum status s, const char *id, const char **row)
{
	char pid[PX_NUM];
	px_num(pid, s == STOPPED ? 0 : r->pid);
	const char *const values[COLUMNS] = { id, pid, STATUS[s], blob(r, B_BUNDLE), blob(r, B_CREATED), blob(r, B_OWNER) };
	for (int i = 0; i < COLUMNS; i++)
		if (!(row[i] = cell(t, values[i])))
			return 0;
	return 1;
}

/* The lines of a state behind one another, without the spaces around them. */
static int add_state(struct text *t, const struct record *r, enum status s)
{
	static char state[1 << 16];
	usize n = render_state(r, s, state, sizeof state);
	char *line = t->at;
	for (usize i = 0; i < n; i++) {
		if ((state[i] < ' ' && state[i] != '\n') || state[i] > '~' || t->at + 2 >= t->end)
			return 0;
		if (state[i] == '\n') {
			while (t->at > line && t->at[-1] == ' ')
				t->at--;
			line = t->at;
		} else if (state[i] != ' ' || t->at > line)
			*t->at++ = state[i];
	}
	return n != 0;
}

static void print_table(struct text *out, int count)
{
	static const char *const titles[COLUMNS] = { "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER" };
	for (int k = 0; k < COLUMNS; k++)
		rows[0][k] = titles[k];
	usize widths[COLUMNS] = { LEAST, LEAST, LEAST, LEAST, LEAST, 0 };
	for (int i = 0; i <= count; i++)
		for (int k = 0; k + 1 < COLUMNS; k++) {
			usize n = px_len(rows[i][k]) + GAP;
			widths[k] = n > widths[k] ? n : widths[k];
		}
	for (int i = 0; i <= count; i++) {
		for (int k = 0; k < COLUMNS; k++) {
			char *start = out->at;
			if (!(out->at = join(out->at, out->end, rows[i][k])) || out->end - out->at < (long)widths[k] + 2)
				return;
			while ((usize)(out->at - start) < widths[k])
				*out->at++ = ' ';
		}
		*out->at++ = '\n';
	}
	print(out_room, (usize)(out->at - out_room));
}

static void print_names(struct text *out, int count)
{
	for (int i = 0; i < count; i++)
		if (!(out->at = join(join(out->at, out->end, names[i]), out->end, "\n")))
			return;
	print(out_room, (usize)(out->at - out_room));
}

void run_list(struct call *c)
{
	struct text out = { out_room, out_room + sizeof out_room }, cells = { cells_room, cells_room + sizeof cells_room };
	int json = c->format && same(c->format, "json"), count;
	if ((c->format && !json && !same(c->format, "table")) || (count = read_names(c->root)) < 0)
		return;
	if (c->quiet)
		print_names(&out, count);
	for (int i = 0; i < count; i++) {
		struct bytes whole;
		c->id = names[i];
		struct record *r = c->quiet ? NULL : read_record(c, &whole);
		if (!r)
			return;
		enum status s = status_of(c, r);
		if (s == CREATING)
			return;
		*out.at = i ? ',' : '[';
		out.at += json;
		if (json ? !add_state(&out, r, s) : !read_row(&cells, r, s, names[i], rows[i + 1]))
			return;
		sys_munmap(whole.p, whole.n + 8);
	}
	if (!json)
		print_table(&out, count);
	if (json && (out.at = join(out.at, out.end, count ? "]\n" : "[]\n")))
		print(out_room, (usize)(out.at - out_room));
}
