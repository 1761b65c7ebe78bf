/* pyrun-init with a C library, for the sanitizers: main() instead of start.c. */
#include "options.h"

void px_start(long *sp) __attribute__((noreturn));

int main(int argc, char **argv)
{
	long sp[64] = { argc };
	for (int i = 0; i < argc && i < 60; i++)
		sp[i + 1] = (long)argv[i];
	px_start(sp);
}
