/* pyrun-layer: unpacks one layer of an image into one directory, or makes a file system's image of it there, and removes
 * such a directory.
 *
 * It is a process of its own because the bytes that it reads are the image's, and it writes as root. It gets nothing but
 * descriptors: 0 the blob, 1 the report, 3 the directory. No path is ever opened by a string from the blob but through
 * openat2(2) from descriptor 3, with RESOLVE_IN_ROOT where the layer's own symbolic links may lead, and one component at
 * a time where they may not. main.c restricts the process before the first byte is read (sandbox.c); one thread reads,
 * inflates and hashes (stream.c), the other takes the tar apart (untar.c, by libarchive) and writes (tree.c, or image.c).
 */
#ifndef PYRUN_LAYER_H
#define PYRUN_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

struct linux_dirent64 { /* getdents64(2) */
    uint64_t ino;
    int64_t off;
    unsigned short reclen;
    unsigned char type;
    char name[];
};

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

/* What entries become: a tree of directories (tree.c), or an image of a file system (image.c). Each call that adds one
 * replaces what has its name. Names are clean: no "", "." or ".." component, no leading slash. */
struct meta {
    uint32_t uid, gid;
    mode_t mode; /* 07777 */
    struct timespec times[2];
    void *xattrs; /* what each_xattr() takes */
};
struct place { /* of a file's bytes: `base` of the descriptor is its first one */
    int fd;
    int64_t base;
    void *file; /* the writer's own */
};
struct writer {
    const struct limits *limits;
    uint64_t entries, implied;
    void (*directory)(struct writer *w, const char *path, const struct meta *meta);
    void (*symlink)(struct writer *w, const char *path, const char *target, const struct meta *meta);
    void (*fifo)(struct writer *w, const char *path, const struct meta *meta);
    void (*link)(struct writer *w, const char *path, const char *target);
    void (*whiteout)(struct writer *w, const char *path);
    void (*opaque)(struct writer *w, const char *directory);
    void (*drop)(struct writer *w, const char *path); /* what an entry that is not made would have replaced */
    struct place (*file)(struct writer *w, const char *path, int64_t size, const struct meta *meta);
    /* end: where the last byte was written, below `size` where the file ends in a hole */
    void (*file_done)(struct writer *w, struct place place, const char *path, const struct meta *meta, int64_t size, int64_t end);
};
void count_entry(struct writer *w, const char *path); /* one more: within the limit? */

/* tree.c: the directory that is written. */
struct tree {
    struct writer writer; /* the first member */
    int root;
    int parent; /* the directory that was written last, kept open; -1 for none */
    char parent_path[PATH_MOST];
    struct stat parent_stat;
    uint64_t inodes, bytes;
};
void tree_open(struct tree *tree, int root, const struct limits *limits);
void tree_close(struct tree *tree);

/* image.c: an EROFS image, in the order that erofs.c gives it. */
struct image;
struct image *image_open(int fd, const struct limits *limits);
struct writer *image_writer(struct image *image);
void image_finish(struct image *image); /* writes all that is not files' bytes; the superblock last */
void image_close(struct image *image);

/* remove.c: what is in the directory; with `counts`, takes it off inodes and bytes. → errno, `at` the name. */
int remove_contents(int directory, struct tree *counts, char at[256]);

/* digest.c: of what is in the directory, or, as_image, of its file "image" */
void content_digest(bool as_image, uint8_t out[DIGEST]);

/* untar.c */
struct counts {
    uint64_t entries, devices;
};
void untar(struct stream *stream, struct writer *writer, const struct limits *limits, struct counts *counts);
/* The attributes that an image may set, one call for each. */
typedef void take_xattr(void *to, const char *name, const void *value, size_t size, const char *path);
void each_xattr(const struct meta *meta, take_xattr *take, void *to, const char *path);
void untar_abandon(void); /* frees what untar() has: the fuzzer's, in which fail() comes back */

/* openat2; tree.c has it. */
int open_beneath(int directory, const char *path, int flags, mode_t mode, uint64_t resolve);

#endif
