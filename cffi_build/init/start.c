/* What a C library would bring to a freestanding program: its entry point, and the functions that the compiler calls by itself. */
#include "sys.h"

void *memcpy(void *d, const void *s, usize n)
{
	for (usize i = 0; i < n; i++)
		((volatile char *)d)[i] = ((const char *)s)[i];
	return d;
}

void *memset(void *d, int c, usize n)
{
	for (usize i = 0; i < n; i++)
		((volatile char *)d)[i] = (char)c;
	return d;
}

/* px_start(sp): sp[0] is argc, then argv, NULL, the environment, NULL. It never returns. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall px_start\n\thlt\n");
#else
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x30, xzr\n\tmov x0, sp\n\tbl px_start\n\tbrk #0\n");
#endif
