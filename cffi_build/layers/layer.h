/* pyrun-layer: unpacks one layer of an image into one directory, and removes such a directory.
 *
 * It is a process of its own because the bytes that it reads are the image's, and it writes as root. It gets nothing but
 * descriptors: 0 the blob, 1 the report, 3 the directory. No path is ever opened by a string from the blob but through
 * openat2(2) from descriptor 3, with RESOLVE_IN_ROOT where the layer's own symbolic links may lead, and one component at
 * a time where they may not. main.c restricts the process before the first byte is read (sandbox.c); one thread reads,
 * inflates and hashes (stream.c), the other takes the tar apart (untar.c, by libarchive) and writes (tree.c).
 */
#ifndef PYRUN_LAYER_H
#define PYRUN_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

enum { BLOB = 0, REPORT = 1, DIRECTORY = 3 };
enum { PATH_MOST = 4096, DIGEST = 32 };

struct limits {
    uint64_t bytes;       /* of the uncompressed tar */
    uint64_t ratio;       /* uncompressed to compressed, once ratio_after bytes have come out */
    uint64_t ratio_after;
    uint64_t entries;     /* of the tar, with the directories that it only implies */
    uint64_t path;        /* bytes of a name */
    uint64_t header;      /* bytes of an entry's headers: pax records, long names, the map of a sparse file */
    uint64_t size;        /* of the blob */
};

/* report.c. fail() does not return: it tells {errno, entry, text} and ends the process. `entry` may be NULL. */
_Noreturn void fail(int error, const char *entry, const char *format, ...) __attribute__((format(printf, 3, 4)));
void report_implied(const char *path);
void report_progress(uint64_t in, uint64_t out, uint64_t entries);
void report_done(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hex(char *out, const uint8_t *bytes, size_t length);

/* sandbox.c */
struct sandbox {
    int landlock; /* its ABI, 0 where the kernel has none that serves */
};
void sandbox_before_threads(struct sandbox *box, int directory);
void sandbox_with_threads(void);

/* stream.c: the blob's bytes, uncompressed. What comes is valid until the next call; 0 is the end, which has been
 * checked: no stream is cut short, nothing trails. */
struct stream;
struct stream *stream_open(int fd, const struct limits *limits, bool hash_blob, bool threaded);
void stream_go(struct stream *stream); /* the thread reads nothing before: it is to be restricted first */
size_t stream_next(struct stream *stream, const uint8_t **bytes);
uint64_t stream_in(struct stream *stream);
uint64_t stream_out(struct stream *stream);
void stream_digests(struct stream *stream, uint8_t blob[DIGEST], uint8_t tar[DIGEST]); /* after its end */
void stream_close(struct stream *stream);

/* tree.c: the directory that is written. Names are clean: no "", "." or ".." component, no leading slash. */
struct meta {
    uint32_t uid, gid;
    mode_t mode; /* 07777 */
    struct timespec times[2];
    void *xattrs; /* what set_xattrs() takes */
};
struct tree {
    int root;
    int parent; /* the directory that was written last, kept open; -1 for none */
    char parent_path[PATH_MOST];
    struct stat parent_stat;
    uint64_t inodes, bytes, implied, entries;
    const struct limits *limits;
    void (*set_xattrs)(int fd, void *xattrs, const char *path);
};
void tree_open(struct tree *tree, int root, const struct limits *limits);
void tree_close(struct tree *tree);
void tree_count(struct tree *tree, const char *path); /* one more entry: within the limit? */
void tree_directory(struct tree *tree, const char *path, const struct meta *meta);
void tree_symlink(struct tree *tree, const char *path, const char *target, const struct meta *meta);
void tree_fifo(struct tree *tree, const char *path, const struct meta *meta);
void tree_link(struct tree *tree, const char *path, const char *target);
void tree_whiteout(struct tree *tree, const char *path);
void tree_opaque(struct tree *tree, const char *directory);
void tree_drop(struct tree *tree, const char *path); /* what an entry that is not made would have replaced */
int tree_file(struct tree *tree, const char *path); /* → a descriptor to write to */
void tree_file_done(struct tree *tree, int fd, const char *path, const struct meta *meta);

/* remove.c: what is in the directory; with `counts`, takes it off inodes and bytes. → errno, `at` the name. */
int remove_contents(int directory, struct tree *counts, char at[256]);

/* untar.c */
struct counts {
    uint64_t entries, devices;
};
void untar(struct stream *stream, struct tree *tree, const struct limits *limits, struct counts *counts);
void untar_abandon(void); /* frees what untar() has: the fuzzer's, in which fail() comes back */

/* openat2; tree.c has it. */
int open_beneath(int directory, const char *path, int flags, mode_t mode, uint64_t resolve);

#endif
