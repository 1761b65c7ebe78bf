/* What is written at the end of an image: directories, inodes, and the superblock last, so that an image that was cut
 * short is none. The format is the kernel's (fs/erofs/erofs_fs.h, Documentation/filesystems/erofs.rst): files, and what of
 * a directory fills blocks, lie in blocks of their own; the last part of a directory, and a symbolic link's target, follow
 * their inode, in whose block they must end. Little-endian.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <linux/capability.h>
#include <search.h>
#include <string.h>
#include <unistd.h>

#include "image.h"

enum { SUPER_AT = 1024, MAGIC = (int)0xE0F5E1E2, FIRST_INODE = 64, INODE_STEP = 64, NID_UNIT = 32, BUFFER = 1 << 18 };
enum { EXTENDED = 1, PLAIN = 0 << 1, INLINE = 2 << 1, XATTR_HEADER = 12, XATTRS_MOST = 65534 * 4 };
enum { TYPE_REG = 1, TYPE_DIR = 2, TYPE_CHR = 3, TYPE_FIFO = 5, TYPE_LINK = 7 };

struct super {
    uint32_t magic, checksum, compat;
    uint8_t block_bits, slots;
    uint16_t root_nid;
    uint64_t inodes, build_time;
    uint32_t build_time_ns, blocks, meta_block, xattr_block;
    uint8_t uuid[16], volume[16];
    uint32_t incompat;
    uint16_t algorithms, devices, device_slot;
    uint8_t directory_bits, prefixes;
    uint32_t prefixes_at;
    uint64_t packed_nid;
    uint8_t filter, reserved[23];
} __attribute__((packed));
_Static_assert(sizeof(struct super) == 128, "a superblock");

struct record {
    uint16_t format, xattr_count, mode, reserved;
    uint64_t size;
    uint32_t block, ino, uid, gid;
    uint64_t mtime;
    uint32_t mtime_ns, links;
    uint8_t reserved2[16];
} __attribute__((packed));
_Static_assert(sizeof(struct record) == 64, "an extended inode");

struct dirent {
    uint64_t nid;
    uint16_t name_at;
    uint8_t type, reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct dirent) == 12, "an entry of a directory");

/* Writes forward, with gaps that stay holes. */
struct cursor {
    int fd;
    uint64_t at;
    size_t have;
    uint8_t buffer[BUFFER];
};

static void flush(struct cursor *c) {
    for (size_t done = 0; done < c->have;) {
        ssize_t n = pwrite(c->fd, c->buffer + done, c->have - done, (int64_t)(c->at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            fail(n ? errno : EIO, NULL, "writing the layer's image");
        done += (size_t)n;
    }
    c->at += c->have;
    c->have = 0;
}

static void put(struct cursor *c, uint64_t at, const void *bytes, size_t length) {
    if (at != c->at + c->have) {
        flush(c);
        c->at = at;
    }
    for (const uint8_t *from = bytes; length > 0;) {
        size_t n = length < BUFFER - c->have ? length : BUFFER - c->have;
        memcpy(c->buffer + c->have, from, n);
        c->have += n;
        from += n;
        length -= n;
        if (c->have == BUFFER)
            flush(c);
    }
}

/* --- attributes --- */

static const struct {
    const char *prefix;
    uint8_t index;
    bool whole; /* the prefix is all of the name */
} KINDS[] = {
    {"user.", 1, false},   {"system.posix_acl_access", 2, true}, {"system.posix_acl_default", 3, true},
    {"trusted.", 4, false}, {"security.", 6, false},
};

static uint32_t number(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return le32toh(value);
}

/* What setxattr(2) would refuse: the kernel does not look at it again when it reads it. */
static bool is_sound(const char *name, const uint8_t *value, size_t size) {
    if (strcmp(name, "security.capability") == 0) {
        uint32_t revision = size >= 4 ? number(value) & VFS_CAP_REVISION_MASK : 0;
        return (revision == VFS_CAP_REVISION_2 && size == XATTR_CAPS_SZ_2) ||
               (revision == VFS_CAP_REVISION_3 && size == XATTR_CAPS_SZ_3);
    }
    if (strncmp(name, "system.posix_acl_", 17) == 0)
        return size >= 4 && number(value) == 2 && (size - 4) % 8 == 0;
    return true;
}

static uint32_t padded(uint32_t bytes) { return (bytes + 3) & ~3U; }

static void drop_xattr(struct inode *inode, const uint8_t *head, const char *name, size_t length) {
    for (uint32_t at = 0, size; at < inode->xattrs_size; at += size) {
        uint8_t *one = inode->xattrs + at;
        size = padded(4U + one[0] + (uint32_t)(one[2] | one[3] << 8));
        if (one[0] == length && one[1] == head[1] && memcmp(one + 4, name, length) == 0) {
            memmove(one, one + size, inode->xattrs_size - at - size);
            inode->xattrs_size -= size;
            return;
        }
    }
}

void add_xattr(struct image *image, struct inode *inode, const char *name, const void *value, size_t size, const char *path) {
    size_t kind = 0, kinds = sizeof KINDS / sizeof *KINDS;
    while (kind < kinds && strncmp(name, KINDS[kind].prefix, strlen(KINDS[kind].prefix)) != 0)
        kind++;
    size_t length = strlen(name);
    const char *rest = kind < kinds ? name + strlen(KINDS[kind].prefix) : name;
    if (kind == kinds || length > COMPONENT_MOST || !*rest != KINDS[kind].whole || !is_sound(name, value, size))
        fail(EINVAL, path, "an extended attribute %.100s that no file can have", name);
    length = strlen(rest);
    uint8_t head[4] = {(uint8_t)length, KINDS[kind].index, (uint8_t)size, (uint8_t)(size >> 8)};
    uint32_t more = padded((uint32_t)(sizeof head + length + (size & 0xffff)));
    drop_xattr(inode, head, rest, length);
    if (size > UINT16_MAX || inode->xattrs_size + more > XATTRS_MOST)
        fail(E2BIG, path, "extended attributes of more than %d bytes", XATTRS_MOST);
    uint8_t *all = image_memory(image, inode->xattrs_size + more);
    memcpy(all, inode->xattrs ? inode->xattrs : head, inode->xattrs_size);
    uint8_t *at = all + inode->xattrs_size;
    memcpy(at, head, sizeof head);
    memcpy(at + sizeof head, rest, length);
    memcpy(at + sizeof head + length, value, size);
    inode->xattrs = all;
    inode->xattrs_size += more;
}

/* --- where everything lies --- */

struct layout {
    struct image *image;
    struct inode *last; /* of those that are to be written */
    struct inode *directory;
    uint64_t inodes, blocks; /* blocks: of the directory, without its last one */
    uint32_t used;           /* of the last one */
};

/* One more entry of the directory: what it leads to is listed once, its links are counted, the size grows. */
static void measure(const void *node, VISIT visit, void *closure) {
    struct layout *l = closure;
    if (visit != postorder && visit != leaf)
        return;
    const struct name *name = *(const struct name *const *)node;
    struct inode *inode = name->inode;
    uint32_t bytes = (uint32_t)(sizeof(struct dirent) + strlen(name->text));
    if (l->used + bytes > BLOCK_BYTES) {
        l->blocks++;
        l->used = 0;
    }
    l->used += bytes;
    inode->links++; /* a directory's: its name, its ".", and the ".." of each in it */
    if (!inode->next && inode != l->last) {
        l->last->next = inode;
        l->last = inode;
    }
}

static uint64_t xattr_bytes(const struct inode *inode) { return inode->xattrs_size ? XATTR_HEADER + inode->xattrs_size : 0; }

/* Gives the inode its place: one in which it, its attributes and what follows them lie as they must. */
static uint64_t lay(struct layout *l, struct inode *inode, uint64_t at) {
    uint64_t head = sizeof(struct record) + xattr_bytes(inode), tail = inode->size % BLOCK_BYTES;
    bool follows = S_ISDIR(inode->mode) || S_ISLNK(inode->mode);
    if (follows && tail && (at + head) % BLOCK_BYTES + tail > BLOCK_BYTES && head + tail <= BLOCK_BYTES)
        at = (at + BLOCK_BYTES - 1) & ~(uint64_t)(BLOCK_BYTES - 1);
    inode->inlined = follows && tail && (at + head) % BLOCK_BYTES + tail <= BLOCK_BYTES;
    inode->at = at;
    uint64_t in_blocks = inode->inlined ? inode->size - tail : inode->size;
    if (follows && in_blocks)
        inode->block = (uint32_t)(take_blocks(l->image, in_blocks, NULL) >> BLOCK_BITS);
    at += head + (inode->inlined ? tail : 0);
    return (at + INODE_STEP - 1) & ~(uint64_t)(INODE_STEP - 1);
}

static uint64_t lay_all(struct layout *l) {
    struct image *image = l->image;
    uint64_t at = FIRST_INODE;
    l->last = image->root;
    for (struct inode *inode = image->root; inode; inode = inode->next) {
        l->inodes++;
        if (S_ISDIR(inode->mode)) {
            l->directory = inode;
            l->blocks = l->used = 0;
            add_name(image, inode, ".", 1, inode);
            add_name(image, inode, "..", 2, inode->parent);
            twalk_r(inode->names, measure, l);
            inode->size = l->blocks * BLOCK_BYTES + l->used;
        }
        if (inode->opaque)
            add_xattr(image, inode, "trusted.overlay.opaque", "y", 1, NULL);
        at = lay(l, inode, at);
    }
    return at;
}

/* --- writing --- */

struct output {
    struct cursor blocks, inodes;
    uint64_t meta, next, tail_at; /* next: the offset of the directory's next block */
    uint64_t left;                /* blocks before the one that follows the inode, if any */
    struct inode *directory;
    const struct name *pending[BLOCK_BYTES / (sizeof(struct dirent) + 1)];
    unsigned count;
    uint32_t used;
};

static uint8_t type_of(mode_t mode) {
    return S_ISREG(mode) ? TYPE_REG : S_ISDIR(mode) ? TYPE_DIR : S_ISLNK(mode) ? TYPE_LINK : S_ISFIFO(mode) ? TYPE_FIFO : TYPE_CHR;
}

static void end_block(struct output *o) {
    uint8_t block[BLOCK_BYTES] = {0};
    uint32_t name_at = (uint32_t)(o->count * sizeof(struct dirent));
    for (unsigned i = 0; i < o->count; i++) {
        const struct name *name = o->pending[i];
        size_t length = strlen(name->text);
        struct dirent entry = {.nid = htole64(name->inode->at / NID_UNIT),
                              .name_at = htole16((uint16_t)name_at),
                              .type = type_of(name->inode->mode)};
        memcpy(block + i * sizeof entry, &entry, sizeof entry);
        memcpy(block + name_at, name->text, length);
        name_at += (uint32_t)length;
    }
    if (o->left > 0) {
        put(&o->blocks, o->next, block, BLOCK_BYTES);
        o->next += BLOCK_BYTES;
        o->left--;
    } else {
        put(&o->inodes, o->tail_at, block, o->used);
    }
    o->count = o->used = 0;
}

static void write_name(const void *node, VISIT visit, void *closure) {
    struct output *o = closure;
    if (visit != postorder && visit != leaf)
        return;
    const struct name *name = *(const struct name *const *)node;
    uint32_t bytes = (uint32_t)(sizeof(struct dirent) + strlen(name->text));
    if (o->used + bytes > BLOCK_BYTES)
        end_block(o);
    o->pending[o->count++] = name;
    o->used += bytes;
}

static void write_inode(struct output *o, const struct inode *inode) {
    uint64_t at = o->meta + inode->at;
    struct record record = {.format = htole16(EXTENDED | (inode->inlined ? INLINE : PLAIN)),
                            .xattr_count = htole16((uint16_t)(inode->xattrs_size ? 1 + inode->xattrs_size / 4 : 0)),
                            .mode = htole16((uint16_t)inode->mode),
                            .size = htole64(inode->size),
                            .block = htole32(inode->block),
                            .ino = htole32((uint32_t)(inode->at / NID_UNIT)),
                            .uid = htole32(inode->uid),
                            .gid = htole32(inode->gid),
                            .mtime = htole64((uint64_t)inode->mtime),
                            .mtime_ns = htole32(inode->mtime_ns),
                            .links = htole32(inode->links)};
    put(&o->inodes, at, &record, sizeof record);
    if (inode->xattrs_size) {
        uint8_t header[XATTR_HEADER] = {0};
        put(&o->inodes, at + sizeof record, header, sizeof header);
        put(&o->inodes, at + sizeof record + sizeof header, inode->xattrs, inode->xattrs_size);
    }
    o->tail_at = at + sizeof record + xattr_bytes(inode);
    o->next = (uint64_t)inode->block << BLOCK_BITS;
    if (S_ISLNK(inode->mode))
        put(inode->inlined ? &o->inodes : &o->blocks, inode->inlined ? o->tail_at : o->next, inode->target, inode->size);
    if (!S_ISDIR(inode->mode))
        return;
    o->left = (inode->size - (inode->inlined ? inode->size % BLOCK_BYTES : 0) + BLOCK_BYTES - 1) / BLOCK_BYTES;
    twalk_r(inode->names, write_name, o);
    end_block(o);
}

void image_finish(struct image *image) {
    struct layout layout = {.image = image};
    uint64_t inodes = lay_all(&layout);
    struct output *o = image_memory(image, sizeof *o);
    o->blocks.fd = o->inodes.fd = image->fd;
    o->meta = take_blocks(image, inodes, NULL);
    for (const struct inode *inode = image->root; inode; inode = inode->next)
        write_inode(o, inode);
    flush(&o->blocks);
    flush(&o->inodes);
    if (ftruncate(image->fd, (int64_t)image->end))
        fail(errno, NULL, "writing the layer's image");
    struct super super = {.magic = htole32((uint32_t)MAGIC),
                          .block_bits = BLOCK_BITS,
                          .root_nid = htole16(FIRST_INODE / NID_UNIT),
                          .inodes = htole64(layout.inodes),
                          .blocks = htole32((uint32_t)(image->end >> BLOCK_BITS)),
                          .meta_block = htole32((uint32_t)(o->meta >> BLOCK_BITS))};
    put(&o->blocks, SUPER_AT, &super, sizeof super);
    flush(&o->blocks);
}
