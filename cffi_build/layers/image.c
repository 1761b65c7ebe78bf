/* The other writer: entries are kept in memory, files' bytes go into the image as they come, and the rest follows at the
 * end (erofs.c). Nothing of the layer ever lies in a directory of the node, no device, no set-id file.
 *
 * Names mean what they mean in tree.c: directories are reached through the layer's own links, with the layer as root, as
 * openat2(2) does it with RESOLVE_IN_ROOT, and the last component is never followed. What is replaced keeps its memory
 * and its bytes: both are bounded, the one by sandbox.c, the other by the limits of the tar.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image.h"

enum { CHUNK = 1 << 20, LINKS_MOST = 40, IMPLIED_MODE = 0755 };
#define BLOCKS_MOST ((uint64_t)UINT32_MAX)

struct chunk {
    struct chunk *older;
    uint8_t bytes[] __attribute__((aligned(16)));
};
union key { /* a name to look for, laid out as one that is there */
    struct name name;
    char room[sizeof(struct name) + COMPONENT_MOST + 1];
};

static struct image *of(struct writer *w) { return (struct image *)w; }

void *image_memory(struct image *image, size_t bytes) {
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > image->left) {
        size_t size = bytes > CHUNK ? bytes : CHUNK;
        struct chunk *chunk = calloc(1, sizeof *chunk + size);
        if (!chunk)
            fail(ENOMEM, NULL, "the layer has more entries than fit into memory: a directory takes it");
        chunk->older = image->chunks;
        image->chunks = chunk;
        image->left = size;
        if (size > CHUNK) { /* full at once */
            image->left = 0;
            return chunk->bytes;
        }
    }
    image->left -= bytes;
    return image->chunks->bytes + image->left;
}

static int compare(const void *a, const void *b) {
    return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

static struct name *find(struct inode *directory, const char *name, size_t length) {
    union key key;
    if (length > COMPONENT_MOST)
        return NULL;
    memcpy(key.name.text, name, length);
    key.name.text[length] = 0;
    struct name **found = tfind(&key.name, &directory->names, compare);
    return found ? *found : NULL;
}

void add_name(struct image *image, struct inode *directory, const char *name, size_t length, struct inode *inode) {
    struct name *made = image_memory(image, sizeof *made + length + 1);
    made->inode = inode;
    memcpy(made->text, name, length);
    if (!tsearch(made, &directory->names, compare))
        fail(ENOMEM, NULL, "the layer has more entries than fit into memory: a directory takes it");
}

static struct inode *make_inode(struct image *image, mode_t mode) {
    struct inode *made = image_memory(image, sizeof *made);
    made->mode = mode;
    made->mtime = image->now.tv_sec;
    made->mtime_ns = (uint32_t)image->now.tv_nsec;
    if (S_ISDIR(mode)) {
        made->older = image->directories;
        image->directories = made;
    }
    return made;
}

/* → the directory, or NULL and errno. */
static struct inode *walk(struct image *image, const char *path) {
    const char *rest[LINKS_MOST + 1] = {path};
    struct inode *at = image->root;
    for (int depth = 0, links = 0; depth >= 0;) {
        const char *from = rest[depth] + strspn(rest[depth], "/");
        size_t n = (size_t)(strchrnul(from, '/') - from);
        rest[depth] = from + n;
        if (n == 0) {
            depth--;
        } else if (n == 2 && from[0] == '.' && from[1] == '.') {
            at = at->parent;
        } else if (n > 1 || from[0] != '.') {
            struct name *name = find(at, from, n);
            errno = n > COMPONENT_MOST ? ENAMETOOLONG : !name ? ENOENT : ELOOP;
            if (!name || (S_ISLNK(name->inode->mode) && links == LINKS_MOST))
                return NULL;
            if (S_ISLNK(name->inode->mode)) {
                const char *target = name->inode->target;
                at = *target == '/' ? image->root : at;
                rest[++depth] = target;
                links++;
                continue;
            }
            errno = ENOTDIR;
            if (!S_ISDIR(name->inode->mode))
                return NULL;
            at = name->inode;
        }
    }
    return at;
}

enum way { FREE, IS_DIRECTORY, HID_LOWER };

/* As in tree.c. */
static enum way clear(struct inode *directory, const char *name, bool for_directory) {
    struct name *found = find(directory, name, strlen(name));
    if (!found)
        return FREE;
    bool is_directory = S_ISDIR(found->inode->mode);
    if (is_directory && for_directory)
        return IS_DIRECTORY;
    if (is_directory)
        found->inode->dead = true;
    tdelete(found, &directory->names, compare);
    return is_directory ? FREE : HID_LOWER;
}

static struct inode *make_directory(struct image *image, struct inode *parent, const char *name, enum way *way) {
    if ((*way = clear(parent, name, true)) == IS_DIRECTORY)
        return find(parent, name, strlen(name))->inode;
    struct inode *made = make_inode(image, S_IFDIR | IMPLIED_MODE);
    made->parent = parent;
    made->opaque = *way == HID_LOWER;
    add_name(image, parent, name, strlen(name), made);
    return made;
}

static struct inode *make_implied(struct image *image, struct inode *parent, const char *name, const char *path) {
    struct name *there = find(parent, name, strlen(name));
    enum way way;
    if (there && !S_ISCHR(there->inode->mode))
        fail(ENOTDIR, path, S_ISLNK(there->inode->mode) ? "a symbolic link that leads nowhere has entries beneath it"
                                                        : "what is not a directory has entries beneath it");
    count_entry(&image->writer, path);
    image->writer.implied++;
    report_implied(path);
    return make_directory(image, parent, name, &way);
}

static struct inode *walk_or_make(struct image *image, const char *path) {
    struct inode *at = walk(image, path);
    if (at)
        return at;
    if (errno != ENOENT && errno != ENOTDIR)
        fail(errno, path, "opening the directory");
    char prefix[PATH_MOST];
    at = image->root;
    for (const char *from = path, *to; *from; from = *to ? to + 1 : to) {
        to = strchrnul(from, '/');
        memcpy(prefix, path, (size_t)(to - path));
        prefix[to - path] = 0;
        struct inode *next = walk(image, prefix);
        if (!next && errno != ENOENT && errno != ENOTDIR)
            fail(errno, prefix, "opening the directory");
        at = next ? next : make_implied(image, at, strrchr(prefix, '/') ? strrchr(prefix, '/') + 1 : prefix, prefix);
    }
    return at;
}

static struct inode *parent_of(struct image *image, const char *path, const char **name) {
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    char directory[PATH_MOST];
    *name = slash ? slash + 1 : path;
    if (strlen(*name) > COMPONENT_MOST)
        fail(ENAMETOOLONG, path, "a name of more than %d bytes", COMPONENT_MOST);
    memcpy(directory, path, length);
    directory[length] = 0;
    return walk_or_make(image, directory);
}

struct target {
    struct image *image;
    struct inode *inode;
};

static void take_one(void *to, const char *name, const void *value, size_t size, const char *path) {
    struct target *target = to;
    add_xattr(target->image, target->inode, name, value, size, path);
}

static void set_owner(struct inode *inode, const struct meta *meta) {
    inode->uid = meta->uid;
    inode->gid = meta->gid;
    inode->mtime = meta->times[1].tv_sec;
    inode->mtime_ns = (uint32_t)meta->times[1].tv_nsec;
}

static void set_meta(struct image *image, struct inode *inode, const char *path, const struct meta *meta) {
    struct target target = {image, inode};
    set_owner(inode, meta);
    inode->mode = (inode->mode & S_IFMT) | (meta->mode & 07777);
    each_xattr(meta, take_one, &target, path);
}

static struct inode *add(struct image *image, const char *path, mode_t mode) {
    const char *name;
    struct inode *parent = parent_of(image, path, &name);
    clear(parent, name, false);
    struct inode *made = make_inode(image, mode);
    add_name(image, parent, name, strlen(name), made);
    return made;
}

static void image_directory(struct writer *w, const char *path, const struct meta *meta) {
    const char *name;
    enum way way;
    struct inode *inode = of(w)->root;
    if (*path) {
        struct inode *parent = parent_of(of(w), path, &name);
        inode = make_directory(of(w), parent, name, &way);
    }
    set_meta(of(w), inode, path, meta);
}

static void image_symlink(struct writer *w, const char *path, const char *target, const struct meta *meta) {
    struct inode *made = add(of(w), path, S_IFLNK | 0777);
    made->size = strlen(target);
    made->target = memcpy(image_memory(of(w), made->size + 1), target, made->size);
    set_owner(made, meta);
}

static void image_fifo(struct writer *w, const char *path, const struct meta *meta) {
    set_owner(add(of(w), path, S_IFIFO | (meta->mode & 0777)), meta);
}

uint64_t take_blocks(struct image *image, uint64_t bytes, const char *path) {
    uint64_t at = image->end, left = (BLOCKS_MOST << BLOCK_BITS) - at;
    if (bytes > left)
        fail(EFBIG, path, "the layer's files, with their holes, take more than the %llu bytes that its image can have",
             (unsigned long long)(BLOCKS_MOST << BLOCK_BITS));
    image->end += (bytes + BLOCK_BYTES - 1) & ~(uint64_t)(BLOCK_BYTES - 1);
    return at;
}

static struct place image_file(struct writer *w, const char *path, int64_t size, const struct meta *meta) {
    (void)meta;
    struct inode *made = add(of(w), path, S_IFREG | 0600);
    made->size = (uint64_t)size;
    uint64_t at = take_blocks(of(w), made->size, path);
    made->block = (uint32_t)(at >> BLOCK_BITS);
    return (struct place){.fd = of(w)->fd, .base = (int64_t)at, .file = made};
}

static void image_file_done(struct writer *w, struct place place, const char *path, const struct meta *meta, int64_t size,
                            int64_t end) {
    (void)size, (void)end; /* what is not written is a hole of the image */
    set_meta(of(w), place.file, path, meta);
}

static void image_link(struct writer *w, const char *path, const char *target) {
    const char *name, *slash = strrchr(target, '/'), *base = slash ? slash + 1 : target;
    char directory[PATH_MOST] = "";
    struct inode *parent = parent_of(of(w), path, &name), *from;
    memcpy(directory, target, slash ? (size_t)(slash - target) : 0);
    from = walk(of(w), directory);
    struct name *found = from ? find(from, base, strlen(base)) : NULL;
    if (from)
        errno = strlen(base) > COMPONENT_MOST ? ENAMETOOLONG : ENOENT;
    if (!found)
        fail(errno, path, "a hard link to what the layer does not have");
    if (S_ISDIR(found->inode->mode) || S_ISCHR(found->inode->mode))
        fail(EPERM, path, "a hard link to a %s", S_ISDIR(found->inode->mode) ? "directory" : "whiteout");
    struct name *there = find(parent, name, strlen(name));
    if (there && there->inode == found->inode)
        return;
    struct inode *inode = found->inode;
    clear(parent, name, false);
    for (; from != of(w)->root; from = from->parent)
        if (from->dead)
            fail(ENOENT, path, "a hard link in the place of what it is a link to");
    add_name(of(w), parent, name, strlen(name), inode);
}

static void image_whiteout(struct writer *w, const char *path) {
    const char *name;
    struct inode *parent = parent_of(of(w), path, &name);
    struct name *there = find(parent, name, strlen(name));
    if (!there)
        add_name(of(w), parent, name, strlen(name), make_inode(of(w), S_IFCHR));
    else if (S_ISDIR(there->inode->mode))
        there->inode->opaque = true;
}

static void image_opaque(struct writer *w, const char *directory) { walk_or_make(of(w), directory)->opaque = true; }

static void image_drop(struct writer *w, const char *path) {
    const char *name;
    struct inode *parent = parent_of(of(w), path, &name);
    clear(parent, name, false);
}

struct writer *image_writer(struct image *image) { return &image->writer; }

struct image *image_open(int fd, const struct limits *limits) {
    struct image *image = calloc(1, sizeof *image);
    if (!image)
        fail(ENOMEM, NULL, "an image");
    *image = (struct image){.writer = {.limits = limits,
                                       .directory = image_directory,
                                       .symlink = image_symlink,
                                       .fifo = image_fifo,
                                       .link = image_link,
                                       .whiteout = image_whiteout,
                                       .opaque = image_opaque,
                                       .drop = image_drop,
                                       .file = image_file,
                                       .file_done = image_file_done},
                            .fd = fd,
                            .end = BLOCK_BYTES}; /* the first one is the superblock's */
    clock_gettime(CLOCK_REALTIME, &image->now);
    image->root = make_inode(image, S_IFDIR | IMPLIED_MODE);
    image->root->parent = image->root;
    return image;
}

static void keep(void *name) { (void)name; }

void image_close(struct image *image) {
    for (struct inode *inode = image->directories; inode; inode = inode->older)
        tdestroy(inode->names, keep);
    for (struct chunk *chunk = image->chunks, *older; chunk; chunk = older) {
        older = chunk->older;
        free(chunk);
    }
    free(image);
}
