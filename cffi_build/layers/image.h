/* The image that is made: its entries, which lie in memory until all of the tar has been read (image.c), and the form in
 * which they are written (erofs.c). */
#ifndef PYRUN_IMAGE_H
#define PYRUN_IMAGE_H

#include "layer.h"

enum { BLOCK_BITS = 12, BLOCK_BYTES = 1 << BLOCK_BITS, COMPONENT_MOST = 255 };

struct inode {
    mode_t mode;
    uint32_t uid, gid, links, mtime_ns;
    int64_t mtime;
    uint64_t size;
    uint32_t block;       /* of a file's first byte */
    const char *target;   /* of a symbolic link */
    uint8_t *xattrs;      /* entries as EROFS has them, each padded to 4 bytes */
    uint32_t xattrs_size;
    bool opaque, dead;    /* dead: it has been replaced */
    struct inode *parent; /* of a directory; the root's is itself */
    void *names;          /* of a directory: its entries, for tsearch(3) */
    uint64_t at;          /* its offset among the inodes, once that is known */
    bool inlined;         /* its last bytes follow it there */
    struct inode *next;   /* in the order in which inodes are written */
    struct inode *older;  /* directory: the one that was made before */
};
struct name {
    struct inode *inode;
    char text[];
};
struct image {
    struct writer writer; /* the first member */
    int fd;
    uint64_t end; /* of the files' bytes, on a block's border */
    struct timespec now;
    struct inode *root, *directories;
    struct chunk *chunks;
    size_t left; /* of the newest chunk */
};

void *image_memory(struct image *image, size_t bytes); /* zeroed; goes with the image */
void add_name(struct image *image, struct inode *directory, const char *name, size_t length, struct inode *inode);
void add_xattr(struct image *image, struct inode *inode, const char *name, const void *value, size_t size, const char *path);
uint64_t take_blocks(struct image *image, uint64_t bytes, const char *path); /* → the offset of the first */

#endif
