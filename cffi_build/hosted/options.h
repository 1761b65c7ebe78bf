/* What the sanitizers are told, in programs that start with an empty environment. */
#ifndef PYRUN_HOSTED_OPTIONS_H
#define PYRUN_HOSTED_OPTIONS_H

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

/* No search for leaks: it traces its own process, and our memory is the kernel's. */
const char *__asan_default_options(void) { return "detect_leaks=0:detect_stack_use_after_return=1:exitcode=99:handle_segv=0"; }
const char *__ubsan_default_options(void) { return "print_stacktrace=1:halt_on_error=1"; }

#endif
