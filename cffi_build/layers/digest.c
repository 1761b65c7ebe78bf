/* What a layer is on the disk, as one SHA-256: recorded when it is unpacked, computed again by who doubts it.
 *
 * Of a tree: of each directory a digest of its entries in the order of their bytes; of an entry its name, kind, mode,
 * owner, times and attributes, and the digest of what it holds (a file's bytes, a link's target, a directory's entries).
 * Numbers are 8 bytes, least first; a string has its length before it. Not in it is what differs without harm: times of
 * access, of the top and of whiteouts, sizes of directories, and labels that the node's own security modules set. Of an
 * image: of the file. So a layer that describes all its directories has the same digest on every node.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "layer.h"

enum { CHUNK = 256 << 10, ATTRIBUTES = 64 << 10, REPORT_NS = 100 * 1000 * 1000 };
enum { TO_READ = O_RDONLY | O_NOATIME | O_NONBLOCK };
static const uint64_t INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;

struct walk {
    char path[PATH_MOST]; /* of the entry that is looked at, "" the top */
    uint64_t bytes, entries;
    struct timespec told;
    uint8_t chunk[CHUNK];
    char names[ATTRIBUTES], value[ATTRIBUTES]; /* of attributes; both as large as the kernel lets them be */
};
struct names {
    char **list;
    size_t count;
};

static void directory_digest(struct walk *w, size_t length, uint8_t out[DIGEST]);

static void add_number(struct sha256_ctx *sum, uint64_t n) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(n >> (8 * i));
    sha256_update(sum, sizeof bytes, bytes);
}

static void add_bytes(struct sha256_ctx *sum, const void *bytes, size_t length) {
    add_number(sum, length);
    sha256_update(sum, length, bytes);
}

static void progress(struct walk *w) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((now.tv_sec - w->told.tv_sec) * 1000000000LL + now.tv_nsec - w->told.tv_nsec < REPORT_NS)
        return;
    w->told = now;
    report_progress(w->bytes, w->bytes, w->entries);
}

static const char *here(const struct walk *w) { return *w->path ? w->path : "."; }

static int open_here(struct walk *w, int flags) {
    int fd = open_beneath(DIRECTORY, here(w), flags | O_CLOEXEC | O_NOFOLLOW, 0, INSIDE);
    if (fd < 0)
        fail(errno, here(w), "opening it");
    return fd;
}

static void sift(char **list, size_t at, size_t count) {
    for (size_t below; (below = 2 * at + 1) < count; at = below) {
        if (below + 1 < count && strcmp(list[below], list[below + 1]) < 0)
            below++;
        if (strcmp(list[at], list[below]) >= 0)
            return;
        char *name = list[at];
        list[at] = list[below];
        list[below] = name;
    }
}

/* A heap sort: libc's qsort() asks the system how much memory there is. */
static void sort(struct names *all) {
    for (size_t at = all->count / 2; at-- > 0;)
        sift(all->list, at, all->count);
    for (size_t last = all->count; last-- > 1;) {
        char *name = all->list[0];
        all->list[0] = all->list[last];
        all->list[last] = name;
        sift(all->list, 0, last);
    }
}

/* type: of an entry as its directory tells it (DT_REG, …; DT_UNKNOWN where it does not), kept behind the name. */
static void add_name(struct names *all, size_t *room, const char *name, unsigned char type) {
    size_t length = strlen(name);
    if (all->count == *room) {
        *room = *room ? 2 * *room : 16;
        all->list = realloc(all->list, *room * sizeof *all->list);
        if (!all->list)
            fail(ENOMEM, NULL, "names of a directory");
    }
    char *kept = all->list[all->count++] = malloc(length + 2);
    if (!kept)
        fail(ENOMEM, NULL, "names of a directory");
    memcpy(kept, name, length + 1);
    kept[length + 1] = (char)type;
}

static struct names read_names(struct walk *w, int fd) {
    struct names all = {0};
    size_t room = 0;
    long n;
    while ((n = syscall(SYS_getdents64, fd, w->chunk, CHUNK)) > 0)
        for (long at = 0; at < n;) {
            struct linux_dirent64 *entry = (struct linux_dirent64 *)(void *)(w->chunk + at);
            at += entry->reclen;
            if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
                add_name(&all, &room, entry->name, entry->type);
        }
    if (n < 0)
        fail(errno, here(w), "reading the directory");
    sort(&all);
    return all;
}

static bool is_the_nodes(const char *name) {
    static const char *const labels[] = {"security.selinux", "security.ima", "security.evm", "security.SMACK64"};
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        if (strcmp(name, labels[i]) == 0)
            return true;
    return false;
}

static void add_attributes(struct walk *w, struct sha256_ctx *sum, int fd) {
    ssize_t n = flistxattr(fd, w->names, sizeof w->names);
    if (n < 0 && errno != ENOTSUP)
        fail(errno, here(w), "listing its extended attributes");
    struct names all = {0};
    size_t room = 0;
    for (ssize_t at = 0; at < n; at += (ssize_t)strlen(w->names + at) + 1)
        if (!is_the_nodes(w->names + at))
            add_name(&all, &room, w->names + at, DT_UNKNOWN);
    sort(&all);
    add_number(sum, all.count);
    for (size_t i = 0; i < all.count; i++) {
        ssize_t size = fgetxattr(fd, all.list[i], w->value, sizeof w->value);
        if (size < 0)
            fail(errno, here(w), "reading the extended attribute %.100s", all.list[i]);
        add_bytes(sum, all.list[i], strlen(all.list[i]));
        add_bytes(sum, w->value, (size_t)size);
        free(all.list[i]);
    }
    free(all.list);
}

/* As the disk has it, not as memory still has what the disk may not have taken: what is written out is forgotten first,
 * but for what a program has mapped. */
static void file_digest(struct walk *w, int fd, uint8_t out[DIGEST]) {
    struct sha256_ctx sum;
    ssize_t n;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    sha256_init(&sum);
    while ((n = read(fd, w->chunk, CHUNK)) > 0) {
        sha256_update(&sum, (size_t)n, w->chunk);
        w->bytes += (uint64_t)n;
        progress(w);
    }
    if (n < 0)
        fail(errno, w->path, "reading it");
    sha256_digest(&sum, DIGEST, out);
}

static void add_owner(struct sha256_ctx *sum, const struct stat *st) {
    add_number(sum, st->st_mode);
    add_number(sum, st->st_uid);
    add_number(sum, st->st_gid);
}

/* path: of the entry, `length` bytes; the last component is what its directory calls it, `name`, of read_names(). */
static void add_entry(struct walk *w, struct sha256_ctx *sum, size_t length, const char *name) {
    struct stat st;
    uint8_t held[DIGEST];
    unsigned char type = (unsigned char)name[strlen(name) + 1];
    bool readable = type == DT_REG || type == DT_DIR;
    int fd = open_here(w, readable ? TO_READ : O_PATH);
    if (fstat(fd, &st))
        fail(errno, w->path, "fstat");
    add_bytes(sum, name, strlen(name));
    add_owner(sum, &st);
    if (S_ISCHR(st.st_mode)) {
        add_number(sum, st.st_rdev);
    } else {
        add_number(sum, (uint64_t)st.st_mtim.tv_sec);
        add_number(sum, (uint64_t)st.st_mtim.tv_nsec);
    }
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
        if (!readable) {
            close(fd);
            fd = open_here(w, TO_READ);
        }
        add_number(sum, S_ISREG(st.st_mode) ? st.st_nlink : 0);
        add_attributes(w, sum, fd);
        if (S_ISREG(st.st_mode)) {
            file_digest(w, fd, held);
        } else {
            close(fd); /* a deep tree has more levels than a process descriptors */
            fd = -1;
            directory_digest(w, length, held);
        }
        sha256_update(sum, DIGEST, held);
    } else if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlinkat(fd, "", (char *)w->chunk, CHUNK);
        if (n < 0)
            fail(errno, w->path, "readlink");
        add_bytes(sum, w->chunk, (size_t)n);
    }
    if (fd >= 0)
        close(fd);
    w->entries++;
    progress(w);
}

static void directory_digest(struct walk *w, size_t length, uint8_t out[DIGEST]) {
    struct sha256_ctx sum;
    int fd = open_here(w, O_RDONLY | O_DIRECTORY | O_NOATIME);
    struct names all = read_names(w, fd);
    close(fd);
    sha256_init(&sum);
    add_number(&sum, all.count);
    for (size_t i = 0; i < all.count; i++) {
        const char *name = all.list[i];
        size_t longer = length + (length > 0) + strlen(name);
        if (longer >= PATH_MOST)
            fail(ENAMETOOLONG, w->path, "the path of an entry in it");
        if (length)
            w->path[length] = '/';
        strcpy(w->path + length + (length > 0), name);
        add_entry(w, &sum, longer, name);
        w->path[length] = 0;
        free(all.list[i]);
    }
    free(all.list);
    sha256_digest(&sum, DIGEST, out);
}

void content_digest(bool as_image, uint8_t out[DIGEST]) {
    struct walk *w = calloc(1, sizeof *w);
    if (!w)
        fail(ENOMEM, NULL, "looking at the layer");
    if (as_image) {
        strcpy(w->path, "image");
        int fd = open_here(w, O_RDONLY | O_NOATIME);
        file_digest(w, fd, out);
        close(fd);
    } else {
        struct sha256_ctx sum;
        struct stat st;
        uint8_t held[DIGEST];
        int fd = open_here(w, O_RDONLY | O_DIRECTORY | O_NOATIME);
        if (fstat(fd, &st))
            fail(errno, here(w), "fstat");
        sha256_init(&sum);
        add_owner(&sum, &st);
        add_attributes(w, &sum, fd);
        close(fd);
        directory_digest(w, 0, held);
        sha256_update(&sum, DIGEST, held);
        sha256_digest(&sum, DIGEST, out);
    }
    free(w);
}
