/* What containers write, as a CRI log: `2026-11-27T00:00:00.000000000Z stdout F text`, one write a batch.
 *
 * A read is a batch, and has one time. A line of more than LINE bytes becomes entries tagged P and a last one tagged F; where a line begins
 * and no more of it has come, it is held till then, so that where reads end shows nowhere. What ends without a newline is tagged P, too: who
 * reads the log joins nothing to it.
 *
 * A log that can't be written to stops the reading, so that the container waits as it would on a full disk, for `patience`; from then on
 * what can't be written is counted, and the first entry that fits says how much it was.
 *
 * With a rate, lines that are more in a second are read and left out, so that the container waits for nothing; an entry after that second says
 * how many they were. A line of which a part is in the log already ends there.
 */
#include "pod.h"

#define OUT (2 * READ)
#define PEND (4 << 20)         /* the most that a batch can become: READ empty lines, each with a stamp */
#define RETRY (100 * MS)
#define SECOND (1000 * MS)
#define SWITCH (200 * MS)      /* for so long a new log waits for the end of a line */
#define MADV_DONTNEED 4

static char in[READ] __attribute__((aligned(4096))), out[OUT] __attribute__((aligned(4096)));
static usize out_len;
static int warm;               /* the buffers have been written to */

typedef u64 unaligned __attribute__((aligned(1), may_alias));

/* Words for the short ones, as most are: rep movsb takes its time to begin. */
static inline void copy(char *to, const char *from, usize n)
{
#if defined(__x86_64__) && !defined(PX_DRY)
	if (n > 512) {
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
		return;
	}
#endif
	for (; n >= 8; n -= 8, to += 8, from += 8)
		*(unaligned *)to = *(const unaligned *)from;
	while (n--)
		*to++ = *from++;
}

/* Where the first newline of n bytes is, or n. Eight at a time: a byte is zero where taking one from it borrows. */
static usize line_end(const char *p, usize n)
{
	const u64 ones = 0x0101010101010101ULL, high = ones << 7, newlines = ones * '\n';
	usize i = 0;
	for (; i + 8 <= n; i += 8) {
		const u64 x = *(const unaligned *)(p + i) ^ newlines;
		const u64 zero = (x - ones) & ~x & high;
		if (zero)
			return i + ((usize)__builtin_ctzll(zero) >> 3);
	}
	while (i < n && p[i] != '\n')
		i++;
	return i;
}

/* ---- writing */

/* How many of n bytes the log took; c->log_err says why not all. */
static usize put(struct ctr *c, const char *p, usize n)
{
	usize done = 0;
	while (done < n) {
		const long r = sys_write(c->log, p + done, n - done);
		if (r == -EINTR)
			continue;
		if (r <= 0) {
			c->log_err = r ? (i32)-r : EIO;
			break;
		}
		done += (usize)r;
	}
	if (done)
		c->torn = p[done - 1] != '\n';
	c->k.log_bytes += done;
	return done;
}

static void lose(struct ctr *c, u64 n)
{
	c->k.lost_bytes += n;
	c->unnoted += n;
}

static void listen_again(struct ctr *c)
{
	for (u32 i = 0; i < 2; i++)
		if (c->out[i].fd >= 0)
			watch(c->out[i].fd, WATCH_STREAM, (u32)(c - ctrs), i);
}

/* The entry that says what is missing. Whether it could be written. */
static int note_loss(struct ctr *c)
{
	static const char words[] = " stderr F pyrun: ", tail[] = " bytes of this log are lost, errno ";
	char note[160], *e = note;
	if (c->torn)
		*e++ = '\n';
	stamp(e, wall_ns());
	e += STAMP;
	for (usize i = 0; words[i]; i++)
		*e++ = words[i];
	e = px_num(e, c->unnoted);
	for (usize i = 0; tail[i]; i++)
		*e++ = tail[i];
	e = px_num(e, (u64)c->log_err);
	*e++ = '\n';
	if (put(c, note, (usize)(e - note)) != (usize)(e - note))
		return 0;
	c->unnoted = 0;
	c->dropping = 0;
	return 1;
}

static void drop_pending(struct ctr *c)
{
	if (c->pend)
		sys_munmap(c->pend, PEND);
	c->pend = NULL;
	c->blocked = c->retry_at = NEVER;
}

/* Writes what `out` holds, or keeps what the log does not take. */
static void flush(struct ctr *c)
{
	usize done = 0;
	if (!out_len)
		return;
	if (c->dropping && !note_loss(c))
		lose(c, out_len);
	else {
		if (!c->pend)
			done = put(c, out, out_len);
		if (done < out_len && !c->pend) {
			const long mem = mem_map(PEND);
			if (mem < 0 && mem > -4096)
				lose(c, out_len - done);
			else {
				c->pend = (char *)mem;
				c->pend_at = c->pend_len = 0;
				c->blocked = sys_now();
				arm(c->retry_at = c->blocked + RETRY);
				for (int i = 0; i < 2; i++)
					if (c->out[i].fd >= 0)
						unwatch(c->out[i].fd);
			}
		}
		if (c->pend) {
			const usize more = out_len - done < PEND - c->pend_len ? out_len - done : PEND - c->pend_len;
			copy(c->pend + c->pend_len, out + done, more);
			c->pend_len += (u32)more;
			lose(c, out_len - done - more);
		}
	}
	out_len = 0;
}

/* Once more what could not be written; its time may be over. */
static void retry(struct ctr *c, long now)
{
	c->pend_at += (u32)put(c, c->pend + c->pend_at, c->pend_len - c->pend_at);
	if (c->pend_at < c->pend_len) {
		if (!c->patience || now - c->blocked < c->patience) {
			arm(c->retry_at = now + RETRY);
			return;
		}
		lose(c, c->pend_len - c->pend_at);
		c->dropping = 1;
	}
	drop_pending(c);
	listen_again(c);
}

/* ---- lines */

static void entry(struct ctr *c, struct stream *s, char *head, usize head_len, const char *p, usize n, char tag)
{
	if (OUT - out_len < head_len + s->held + n + 1)
		flush(c);
	head[head_len - 2] = tag;
	copy(out + out_len, head, head_len);
	out_len += head_len;
	copy(out + out_len, s->part, s->held);
	out_len += s->held;
	copy(out + out_len, p, n);
	out_len += n;
	out[out_len++] = '\n';
	s->held = 0;
	s->midline = tag == 'P';
}

static usize make_head(const struct ctr *c, const struct stream *s, char *head)
{
	const char *name = s == c->out ? " stdout F " : " stderr F ";
	stamp(head, wall_ns());
	for (usize i = 0; i < 10; i++)
		head[STAMP + i] = name[i];
	return STAMP + 10;
}

/* The end of a second: what was left out in it is told, on a stream that is not within a line. */
static void end_second(struct ctr *c)
{
	static const char words[] = "pyrun: lines of this log that are left out, more than ", tail[] = " KiB a second: ";
	char head[STAMP + 10], note[160], *e = note;
	struct stream *s = c->out + !c->out[1].midline;
	if (c->left_out && s->midline) {
		c->rate_until = sys_now() + SECOND; /* later */
		arm(c->rate_until);
		return;
	}
	c->rate_until = NEVER;
	c->used = 0;
	if (!c->left_out)
		return;
	for (usize i = 0; words[i]; i++)
		*e++ = words[i];
	e = px_num(e, c->rate >> 10);
	for (usize i = 0; tail[i]; i++)
		*e++ = tail[i];
	e = px_num(e, c->left_out);
	c->left_out = 0;
	const u32 held = s->held;
	s->held = 0;
	entry(c, s, head, make_head(c, s, head), note, (usize)(e - note), 'F');
	s->held = held;
}

/* An entry, if it is not too much. The first one of a second fits always. */
static void limited(struct ctr *c, struct stream *s, char *head, usize head_len, const char *p, usize n, char tag)
{
	if (c->rate) {
		const long now = sys_now();
		if (now >= c->rate_until)
			end_second(c);
		if (c->rate_until == NEVER)
			c->rate_until = now + SECOND;
		if (!s->skips && c->used >= c->rate) {
			if (!c->left_out++)
				arm(c->rate_until);
			s->skips = 1;
			if (s->midline) {
				c->k.lost_bytes += s->held;
				s->held = 0;
				entry(c, s, head, head_len, p, 0, 'F');
			}
		}
		if (s->skips) {
			c->k.lost_bytes += s->held + n;
			s->held = 0;
			s->skips = tag == 'P';
			return;
		}
		c->used += head_len + s->held + n + 1;
	}
	entry(c, s, head, head_len, p, n, tag);
}

/* The beginning of a line, until more of it comes. */
static void hold(struct stream *s, const char *p, usize n)
{
	if (!s->part) {
		const long mem = mem_map(LINE);
		if (mem < 0 && mem > -4096)
			return;
		s->part = (char *)mem;
	}
	copy(s->part + s->held, p, n);
	s->held += (u32)n;
}

static void let_go(struct stream *s)
{
	if (s->part && !s->held) {
		sys_munmap(s->part, LINE);
		s->part = NULL;
	}
}

static void lines(struct ctr *c, struct stream *s, const char *p, usize n)
{
	char head[STAMP + 10];
	const usize head_len = make_head(c, s, head);
	while (n) {
		const usize room = LINE - s->held, look = n < room + 1 ? n : room + 1, at = line_end(p, look);
		if (at < look) {
			limited(c, s, head, head_len, p, at, 'F');
			p += at + 1;
			n -= at + 1;
		} else if (n > room) {
			limited(c, s, head, head_len, p, room, 'P');
			p += room;
			n -= room;
		} else {
			hold(s, p, n);
			n = 0;
		}
	}
	let_go(s);
	flush(c);
}

/* ---- the log's file */

static void switch_log(struct ctr *c)
{
	sys_close(c->log);
	c->log = c->next_log;
	c->next_log = -1;
	c->switch_by = NEVER;
	if (c->pend && c->torn) { /* the rest of an entry whose beginning is in the old file */
		const usize rest = line_end(c->pend + c->pend_at, c->pend_len - c->pend_at) + 1;
		lose(c, rest);
		c->pend_at += (u32)rest;
	}
	c->torn = 0;
	if (c->pend)
		retry(c, sys_now());
	if (c->unnoted && !c->pend)
		note_loss(c);
	if (c->log_call >= 0) {
		struct call *asker = calls + c->log_call;
		c->log_call = -1;
		reply(asker->fd, POD_DONE, 0, 0, 0);
		end_call(asker);
	}
}

static int in_a_line(const struct ctr *c)
{
	return (c->out[0].fd >= 0 && c->out[0].midline) || (c->out[1].fd >= 0 && c->out[1].midline);
}

/* fd is the log from the end of the line on that is being written. */
void log_switch(struct ctr *c, int fd, struct call *asker)
{
	if (c->next_log >= 0) { /* two at once: the first is answered, and what it gave is used for nothing */
		sys_close(c->next_log);
		if (c->log_call >= 0) {
			reply(calls[c->log_call].fd, POD_DONE, ECANCELED, 0, 0);
			end_call(calls + c->log_call);
		}
	}
	c->next_log = fd;
	c->log_call = (i32)(asker - calls);
	asker->use = CALL_SWITCH;
	if (in_a_line(c) && !c->pend)
		arm(c->switch_by = sys_now() + SWITCH);
	else
		switch_log(c);
}

static void stream_ends(struct ctr *c, struct stream *s)
{
	if (s->held && c->log >= 0) {
		char head[STAMP + 10];
		limited(c, s, head, make_head(c, s, head), NULL, 0, 'P');
		flush(c);
	}
	s->held = 0;
	let_go(s);
	s->midline = 0;
	unwatch(s->fd);
	if (c->input == s->fd)
		c->input = -1;
	shut(&s->fd);
}

/* One read of a stream that has something. */
void log_read(struct ctr *c, struct stream *s)
{
	const long n = sys_read(s->fd, in, READ);
	if (n == -EINTR || n == -EAGAIN)
		return;
	if (n <= 0) /* a terminal that nobody has open any more says EIO */
		stream_ends(c, s);
	else {
		warm = 1;
		tee(c, s == c->out ? 1 : 2, in, (usize)n);
		if (c->log >= 0)
			lines(c, s, in, (usize)n);
	}
	if (c->next_log >= 0 && (!in_a_line(c) || c->pend))
		switch_log(c);
	log_done(c);
}

/* Once the init has ended: whether all that it wrote is in the log, or has had its time. Then its end is told. */
void log_done(struct ctr *c)
{
	const int open = c->out[0].fd >= 0 || c->out[1].fd >= 0 || c->pend;
	if (c->k.state != POD_ENDED || c->told || (open && sys_now() < c->drain_by))
		return;
	for (int i = 0; i < 2; i++)
		if (c->out[i].fd >= 0)
			stream_ends(c, c->out + i);
	if (c->left_out && c->log >= 0) {
		c->out[0].midline = c->out[1].midline = 0;
		end_second(c);
		flush(c);
	}
	if (c->pend)
		lose(c, c->pend_len - c->pend_at);
	drop_pending(c);
	if (c->next_log >= 0)
		switch_log(c);
	if (c->unnoted && c->log >= 0)
		note_loss(c);
	shut(&c->log);
	shut(&c->input);
	shut(&c->oom);
	shut(&c->oom_above);
	cut_all(c);
	c->told = 1;
	c->drain_by = NEVER;
	tell_exit(c);
}

void log_timers(struct ctr *c, long now)
{
	if (c->pend && now >= c->retry_at)
		retry(c, now);
	if (c->next_log >= 0 && now >= c->switch_by)
		switch_log(c);
	if (c->left_out && c->log >= 0 && now >= c->rate_until) {
		end_second(c);
		flush(c);
	}
	log_done(c);
	arm(c->retry_at);
	arm(c->switch_by);
	arm(c->drain_by);
	if (c->left_out)
		arm(c->rate_until);
}

/* Gives the buffers back after a time without any output. Whether there was something to give. */
int log_cools(void)
{
	const int was = warm;
	if (warm) {
		sc3(__NR_madvise, in, READ, MADV_DONTNEED);
		sc3(__NR_madvise, out, OUT, MADV_DONTNEED);
	}
	warm = 0;
	return was;
}
