#include <stddef.h>
#include <stdint.h>

void add_tokens(const uint8_t *data, size_t length, uint8_t *filter, size_t size);
