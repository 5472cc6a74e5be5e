/* Preloaded in user-mode Linux: its verifier demands that every access to a packet is aligned
 * (it knows of no architecture that can do without), which no program can be that parses IP behind
 * an Ethernet header. BPF_F_ANY_ALIGNMENT lifts that, so it is added to every program loaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>

enum { BPF_PROG_LOAD = 5, BPF_F_ANY_ALIGNMENT = 2, PROG_FLAGS = 44 / sizeof(uint32_t) };

long syscall(long number, ...)
{
    static long (*next)(long, ...);
    long arguments[6];
    va_list list;

    va_start(list, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(list, long);
    va_end(list);
    if (!next)
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_bpf && arguments[0] == BPF_PROG_LOAD)
        ((uint32_t *)arguments[1])[PROG_FLAGS] |= BPF_F_ANY_ALIGNMENT;
    return next(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                arguments[5]);
}
