/* pyrun-layer without its sandbox, in which a sanitizer can't live: it reads /proc, and takes more memory and calls. */
#include "../layers/layer.h"
#include "options.h"

void sandbox_before_threads(struct sandbox *box, int directory) {
    (void)directory;
    box->landlock = 0;
}

void sandbox_with_threads(void) {}
