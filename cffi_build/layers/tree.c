/* The writer: every name is taken from the directory that it lies in, which is held by a descriptor.
 *
 * The directory of an entry may be reached through symbolic links of the layer itself, as the peers allow: the kernel
 * resolves them with the layer as root (RESOLVE_IN_ROOT), so they lead nowhere else. The last component is never followed.
 * What writing in a directory does to its times is undone when the next one is opened, so no list of directories is kept.
 * Bytes are counted as du counts them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "layer.h"

#define OPAQUE "trusted.overlay.opaque"
enum { DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC, MODE = 07777, IMPLIED_MODE = 0755 };
#define LED (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
#define PLAIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)

int open_beneath(int directory, const char *path, int flags, mode_t mode, uint64_t resolve) {
    struct open_how how = {.flags = (uint64_t)flags, .mode = mode, .resolve = resolve};
    long fd;
    do
        fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
    while (fd < 0 && (errno == EAGAIN || errno == EINTR));
    return (int)fd;
}

static struct tree *of(struct writer *w) { return (struct tree *)w; }

static bool is_whiteout(const struct stat *st) { return S_ISCHR(st->st_mode) && st->st_rdev == 0; }

static void add(struct tree *t, const struct stat *st) {
    t->inodes++;
    t->bytes += (uint64_t)st->st_blocks * 512;
}

static void see(int fd, struct stat *st, const char *path) {
    if (fstat(fd, st))
        fail(errno, path, "fstat");
}

/* Directories grow: what the one that is left has grown by is counted, and its times are put back. */
static void leave_parent(struct tree *t) {
    if (t->parent < 0)
        return;
    struct stat now;
    see(t->parent, &now, t->parent_path);
    t->bytes += (uint64_t)(now.st_blocks - t->parent_stat.st_blocks) * 512;
    struct timespec times[2] = {t->parent_stat.st_atim, t->parent_stat.st_mtim};
    if (futimens(t->parent, times))
        fail(errno, t->parent_path, "futimens");
    close(t->parent);
    t->parent = -1;
}

static void make_opaque(int fd, const char *path) {
    if (fsetxattr(fd, OPAQUE, "y", 1, 0))
        fail(errno, path, "setting %s", OPAQUE);
}

static void remove_tree(struct tree *t, int parent, const char *name, const char *path) {
    char at[256] = "";
    int fd = open_beneath(parent, name, DIR_FLAGS, 0, PLAIN);
    if (fd < 0)
        fail(errno, path, "opening what is to be replaced");
    struct stat st;
    see(fd, &st, path);
    int error = remove_contents(fd, t, at);
    close(fd);
    if (error)
        fail(error, path, "removing what is to be replaced");
    if (unlinkat(parent, name, AT_REMOVEDIR))
        fail(errno, path, "removing the directory that is to be replaced");
    t->inodes--;
    t->bytes -= (uint64_t)st.st_blocks * 512;
}

enum way { FREE, IS_DIRECTORY, HID_LOWER };

/* Takes away what has the name. A directory stays for a directory. HID_LOWER: what was there, a whiteout or a file, hid
 * a lower layer's directory, so that a new directory must not let it through. */
static enum way clear(struct tree *t, int parent, const char *name, const char *path, bool for_directory) {
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW)) {
        if (errno != ENOENT)
            fail(errno, path, "fstatat");
        return FREE;
    }
    if (S_ISDIR(st.st_mode)) {
        if (for_directory)
            return IS_DIRECTORY;
        remove_tree(t, parent, name, path);
        return FREE;
    }
    if (unlinkat(parent, name, 0))
        fail(errno, path, "removing what is to be replaced");
    if (st.st_nlink == 1) {
        t->inodes--;
        t->bytes -= (uint64_t)st.st_blocks * 512;
    }
    return HID_LOWER;
}

/* mkdirat in `parent`, whose times stay. → what was in the way, if it hid a lower layer's. */
static enum way make_directory(struct tree *t, int parent, const char *name, const char *path) {
    enum way way = FREE;
    while (mkdirat(parent, name, IMPLIED_MODE)) {
        if (errno != EEXIST)
            fail(errno, path, "mkdirat");
        if ((way = clear(t, parent, name, path, true)) == IS_DIRECTORY)
            return way;
    }
    return way;
}

/* A directory that has no entry before what lies in it: 0755, root's. Told, because a lower layer may know better. */
static int make_implied(struct tree *t, int parent, const char *name, const char *path) {
    struct stat st, before;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !is_whiteout(&st))
        fail(ENOTDIR, path, S_ISLNK(st.st_mode) ? "a symbolic link that leads nowhere has entries beneath it"
                                                : "what is not a directory has entries beneath it");
    see(parent, &before, path);
    count_entry(&t->writer, path);
    enum way way = make_directory(t, parent, name, path);
    struct timespec times[2] = {before.st_atim, before.st_mtim};
    if (futimens(parent, times))
        fail(errno, path, "futimens");
    int fd = open_beneath(parent, name, DIR_FLAGS, 0, PLAIN);
    if (fd < 0 || fchown(fd, 0, 0) || fchmod(fd, IMPLIED_MODE))
        fail(errno, path, "a directory that the layer only implies");
    if (way == HID_LOWER)
        make_opaque(fd, path);
    see(fd, &st, path);
    add(t, &st);
    t->writer.implied++;
    report_implied(path);
    return fd;
}

/* Opens the directory, and makes what is missing on the way to it. */
static int open_or_make(struct tree *t, const char *path) {
    int fd = open_beneath(t->root, *path ? path : ".", DIR_FLAGS, 0, LED);
    if (fd >= 0)
        return fd;
    if (errno != ENOENT && errno != ENOTDIR)
        fail(errno, path, "opening the directory");
    char prefix[PATH_MOST];
    int at = open_beneath(t->root, ".", DIR_FLAGS, 0, PLAIN);
    if (at < 0)
        fail(errno, ".", "opening the layer's root");
    for (const char *from = path, *to; *from; from = *to ? to + 1 : to) {
        to = strchrnul(from, '/');
        memcpy(prefix, path, (size_t)(to - path));
        prefix[to - path] = 0;
        int next = open_beneath(t->root, prefix, DIR_FLAGS, 0, LED);
        if (next < 0 && errno != ENOENT && errno != ENOTDIR)
            fail(errno, prefix, "opening the directory");
        if (next < 0)
            next = make_implied(t, at, strrchr(prefix, '/') ? strrchr(prefix, '/') + 1 : prefix, prefix);
        close(at);
        at = next;
    }
    return at;
}

/* → the descriptor of the directory that `path` lies in, the tree's own, and the last component. */
static int parent_of(struct tree *t, const char *path, const char **name) {
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    *name = slash ? slash + 1 : path;
    if (t->parent >= 0 && strlen(t->parent_path) == length && memcmp(t->parent_path, path, length) == 0)
        return t->parent;
    leave_parent(t);
    memcpy(t->parent_path, path, length);
    t->parent_path[length] = 0;
    int fd = open_or_make(t, t->parent_path);
    see(fd, &t->parent_stat, path);
    return t->parent = fd;
}

static void set_xattr(void *fd, const char *name, const void *value, size_t size, const char *path) {
    if (fsetxattr(*(int *)fd, name, value, size, 0) && errno != ENOTSUP)
        fail(errno, path, "setting the extended attribute %.100s", name);
}

/* What the entry says, where the new one (`now`, empty but for its bytes) is not so already: most are root's, and each
 * change is one of the file system's journal. */
static void set_meta(int fd, const char *path, const struct meta *meta, const struct stat *now) {
    bool chown = now->st_uid != meta->uid || now->st_gid != meta->gid;
    if (chown && fchown(fd, meta->uid, meta->gid))
        fail(errno, path, "fchown");
    if ((chown || (now->st_mode & MODE) != (meta->mode & MODE)) && fchmod(fd, meta->mode & MODE))
        fail(errno, path, "fchmod");
    each_xattr(meta, set_xattr, &fd, path);
    if (futimens(fd, meta->times))
        fail(errno, path, "futimens");
}

/* "" is the root of the layer. An existing directory may be the parent that is open, by another name: leave it first. */
static void tree_directory(struct writer *w, const char *path, const struct meta *meta) {
    struct tree *t = of(w);
    const char *name = ".";
    enum way way = IS_DIRECTORY;
    int parent = t->root;
    if (*path) {
        parent = parent_of(t, path, &name);
        way = make_directory(t, parent, name, path);
    }
    int fd = open_beneath(parent, name, DIR_FLAGS, 0, PLAIN);
    if (fd < 0)
        fail(errno, path, "opening the directory");
    if (way == IS_DIRECTORY)
        leave_parent(t);
    struct stat before, st;
    see(fd, &before, path);
    if (way == HID_LOWER)
        make_opaque(fd, path);
    set_meta(fd, path, meta, &before);
    see(fd, &st, path);
    if (way == IS_DIRECTORY)
        t->bytes += (uint64_t)(st.st_blocks - before.st_blocks) * 512;
    else
        add(t, &st);
    close(fd);
}

static struct place tree_file(struct writer *w, const char *path, int64_t size, const struct meta *meta) {
    struct tree *t = of(w);
    const char *name;
    int parent = parent_of(t, path, &name), fd, flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    (void)size;
    while ((fd = open_beneath(parent, name, flags, meta->mode & 0777, PLAIN)) < 0) {
        if (errno != EEXIST)
            fail(errno, path, "creating the file");
        clear(t, parent, name, path, false);
    }
    return (struct place){.fd = fd};
}

static void tree_file_done(struct writer *w, struct place place, const char *path, const struct meta *meta, int64_t size,
                           int64_t end) {
    struct stat st;
    if (end < size && ftruncate(place.fd, size))
        fail(errno, path, "a hole up to byte %lld", (long long)size);
    see(place.fd, &st, path);
    set_meta(place.fd, path, meta, &st);
    if (meta->xattrs) /* they may take blocks */
        see(place.fd, &st, path);
    add(of(w), &st);
    close(place.fd);
}

static void set_meta_at(int parent, const char *name, const char *path, const struct meta *meta) {
    if (fchownat(parent, name, meta->uid, meta->gid, AT_SYMLINK_NOFOLLOW))
        fail(errno, path, "fchownat");
    if (utimensat(parent, name, meta->times, AT_SYMLINK_NOFOLLOW))
        fail(errno, path, "utimensat");
}

static void add_at(struct tree *t, int parent, const char *name, const char *path) {
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
        fail(errno, path, "fstatat");
    add(t, &st);
}

static void tree_symlink(struct writer *w, const char *path, const char *target, const struct meta *meta) {
    struct tree *t = of(w);
    const char *name;
    int parent = parent_of(t, path, &name);
    while (symlinkat(target, parent, name)) {
        if (errno != EEXIST)
            fail(errno, path, "symlinkat");
        clear(t, parent, name, path, false);
    }
    set_meta_at(parent, name, path, meta);
    add_at(t, parent, name, path);
}

static void tree_fifo(struct writer *w, const char *path, const struct meta *meta) {
    struct tree *t = of(w);
    const char *name;
    int parent = parent_of(t, path, &name);
    while (mknodat(parent, name, S_IFIFO | (meta->mode & 0777), 0)) {
        if (errno != EEXIST)
            fail(errno, path, "mknodat");
        clear(t, parent, name, path, false);
    }
    set_meta_at(parent, name, path, meta);
    add_at(t, parent, name, path);
}

/* The target is a name of this layer, like any other: its directory by way of the layer's links, itself never followed. */
static int open_target(struct tree *t, const char *path, const char *target, const char **base) {
    const char *slash = strrchr(target, '/');
    char directory[PATH_MOST] = ".";
    if (slash) {
        memcpy(directory, target, (size_t)(slash - target));
        directory[slash - target] = 0;
    }
    *base = slash ? slash + 1 : target;
    int fd = open_beneath(t->root, directory, DIR_FLAGS, 0, LED);
    struct stat st;
    if (fd < 0 || fstatat(fd, *base, &st, AT_SYMLINK_NOFOLLOW))
        fail(errno, path, "a hard link to what the layer does not have");
    if (S_ISDIR(st.st_mode) || S_ISCHR(st.st_mode))
        fail(EPERM, path, "a hard link to a %s", S_ISDIR(st.st_mode) ? "directory" : "whiteout");
    return fd;
}

static bool is_same(int a, const char *at_a, int b, const char *at_b) {
    struct stat one, two;
    return fstatat(a, at_a, &one, AT_SYMLINK_NOFOLLOW) == 0 && fstatat(b, at_b, &two, AT_SYMLINK_NOFOLLOW) == 0 &&
           one.st_ino == two.st_ino && one.st_dev == two.st_dev;
}

static void tree_link(struct writer *w, const char *path, const char *target) {
    struct tree *t = of(w);
    const char *name, *base;
    int parent = parent_of(t, path, &name);
    int from = open_target(t, path, target, &base);
    while (linkat(from, base, parent, name, 0)) {
        if (errno != EEXIST)
            fail(errno, path, "linkat");
        if (is_same(from, base, parent, name))
            break;
        clear(t, parent, name, path, false);
    }
    close(from);
}

static void tree_opaque(struct writer *w, const char *directory);

/* Hides what a lower layer has. What this layer itself has of that name stays (the specification says so), but a
 * directory of it then lets nothing through. */
static void tree_whiteout(struct writer *w, const char *path) {
    struct tree *t = of(w);
    const char *name;
    int parent = parent_of(t, path, &name);
    if (mknodat(parent, name, S_IFCHR, 0) == 0) {
        add_at(t, parent, name, path);
        return;
    }
    struct stat st;
    if (errno != EEXIST)
        fail(errno, path, "making the whiteout");
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW))
        fail(errno, path, "fstatat");
    if (S_ISDIR(st.st_mode))
        tree_opaque(w, path);
}

static void tree_opaque(struct writer *w, const char *directory) {
    struct tree *t = of(w);
    leave_parent(t);
    int fd = open_or_make(t, directory);
    make_opaque(fd, directory);
    close(fd);
}

static void tree_drop(struct writer *w, const char *path) {
    struct tree *t = of(w);
    const char *name;
    int parent = parent_of(t, path, &name);
    clear(t, parent, name, path, false);
}

void tree_open(struct tree *t, int root, const struct limits *limits) {
    *t = (struct tree){.writer = {.limits = limits,
                                  .directory = tree_directory,
                                  .symlink = tree_symlink,
                                  .fifo = tree_fifo,
                                  .link = tree_link,
                                  .whiteout = tree_whiteout,
                                  .opaque = tree_opaque,
                                  .drop = tree_drop,
                                  .file = tree_file,
                                  .file_done = tree_file_done},
                       .root = root,
                       .parent = -1};
    struct stat st;
    see(root, &st, ".");
    add(t, &st);
}

void tree_close(struct tree *t) { leave_parent(t); }
