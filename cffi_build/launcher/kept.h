/* Plans that Python has kept, as pyrun/runtime/cache.py writes them: the entry, its key, its conditions, and how its plan is run. */
#ifndef PYRUN_LAUNCHER_KEPT_H
#define PYRUN_LAUNCHER_KEPT_H

#include "launcher.h"

#define MOST (1u << 20)            /* of an entry, and of a config.json */
#define MISSING 0xffffffffu
enum condition_kind { CONTENT, LINE, SAME_PLACE, SAME_FILE };
enum hole_kind { HOLE_ID, HOLE_CREATED, HOLE_CREATOR, HOLE_PID_FILE, HOLE_PID_FILE_NEW, HOLE_KINDS };

struct entry {
	char magic[8];
	u32 key, key_len, conditions, n_conditions, holes, n_holes, plan, plan_len, config, config_len, record, record_len;
};
struct condition { u32 kind, path, data, len; };
struct hole { u32 at, kind; };

struct key { char text[1 << 17]; usize n; int full; };

/* kept.c */
void add(struct key *k, const char *word);
void add_number(struct key *k, u64 number);
void add_bytes(struct key *k, const void *p, usize n);
int equal(const void *a, const void *b, usize n);
int lies_in(const struct bytes *b, u64 at, u64 n);
/* Reads the entry of this key out of a file that nobody but us may have written. */
int read_entry(int dir, const char *path, const struct key *k, struct bytes *b);
int all_hold(const struct bytes *b);
/* Puts the value of each kind into its holes; a kind without a value has no hole. */
int fill_holes(const struct bytes *b, const struct bytes values[HOLE_KINDS]);
/* When it fails Python tells of it, or does it again: where Python might plan something else by now, a step's number says nothing to it. */
enum failing { TOLD, DONE_AGAIN };
/* Runs the plan. */
void __attribute__((noreturn)) run_whole(px_run_t *run, enum failing how);
/* The same, and hands signals on until its process has ended. Its exit code; pid: the process that it was. */
int run_foreground(px_run_t *run, enum failing how, int *pid);

#endif
