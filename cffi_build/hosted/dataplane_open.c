/* pyrun-dataplane without its sandbox, in which a sanitizer can't live. */
#include "../dataplane/dp.h"
#include "options.h"

void sandbox(uint32_t uid, uint32_t gid) { (void)uid, (void)gid; }
