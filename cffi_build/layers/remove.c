/* Empties a directory: no link is followed, no mount is entered, however deep it is.
 *
 * A directory that lies deeper than DEPTH is moved up to the top first, so neither the stack nor the descriptors run out.
 * Nobody else writes here: a layer is removed by the one who has its lock.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "layer.h"

enum { DEPTH = 64, ENTRIES_SIZE = 16 * 1024 };

struct removal {
    int top;
    unsigned moved; /* directories that were moved to the top; the next one's name */
    struct tree *counts;
    char *at;
};

static int stop(struct removal *r, const char *name) {
    int error = errno;
    snprintf(r->at, 256, "%s", name);
    return error;
}

static void discount(struct removal *r, int directory, const char *name) {
    struct stat st;
    if (r->counts && fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (S_ISDIR(st.st_mode) || st.st_nlink == 1)) {
        r->counts->inodes--;
        r->counts->bytes -= (uint64_t)st.st_blocks * 512;
    }
}

static int move_up(struct removal *r, int directory, const char *name) {
    char to[32];
    for (;;) {
        snprintf(to, sizeof to, ".pyrun-deep-%u", r->moved++);
        if (syscall(SYS_renameat2, directory, name, r->top, to, RENAME_NOREPLACE) == 0)
            return 0;
        if (errno != EEXIST)
            return stop(r, name);
    }
}

static int empty(struct removal *r, int directory, int depth);

static int remove_one(struct removal *r, int directory, const char *name, int depth) {
    discount(r, directory, name);
    if (unlinkat(directory, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return stop(r, name);
    if (unlinkat(directory, name, AT_REMOVEDIR) == 0)
        return 0;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return stop(r, name);
    if (depth == DEPTH)
        return move_up(r, directory, name);
    int fd = open_beneath(directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0,
                          RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
    if (fd < 0)
        return stop(r, name);
    int error = empty(r, fd, depth + 1);
    close(fd);
    if (!error && unlinkat(directory, name, AT_REMOVEDIR))
        error = stop(r, name);
    return error;
}

static bool is_dot(const char *name) { return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])); }

/* File systems may leave out entries when others go while one reads: so it is read again until nothing is found. */
static int empty(struct removal *r, int directory, int depth) {
    char buffer[ENTRIES_SIZE] __attribute__((aligned(8)));
    for (bool found = true; found;) {
        found = false;
        if (lseek(directory, 0, SEEK_SET) < 0)
            return stop(r, ".");
        for (;;) {
            long n = syscall(SYS_getdents64, directory, buffer, sizeof buffer);
            if (n < 0)
                return stop(r, ".");
            if (n == 0)
                break;
            for (long at = 0; at < n;) {
                struct linux_dirent64 *entry = (struct linux_dirent64 *)(buffer + at);
                at += entry->reclen;
                if (is_dot(entry->name))
                    continue;
                found = true;
                int error = remove_one(r, directory, entry->name, depth);
                if (error)
                    return error;
            }
        }
    }
    return 0;
}

int remove_contents(int directory, struct tree *counts, char at[256]) {
    struct removal r = {.top = directory, .counts = counts, .at = at};
    return empty(&r, directory, 0);
}
