/* Makes system calls and prints what the kernel says. Each argument is ABI:NUMBER[:ARGUMENT...], ABI 64 for the machine's
   own calls or 32 for those of a 32-bit program; each line is the name of the errno, or `ok`. Pointers are given as
   numbers that point nowhere, so that a call which is let through fails before it has done anything. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long call64(long number, const long *a) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]) : "rcx", "r11", "memory");
    return result;
}

static long call32(long number, const long *a) {
    int result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"((int)number), "b"((int)a[0]), "c"((int)a[1]), "d"((int)a[2])
                     : "r8", "r9", "r10", "r11", "memory");
    return result;
}

int main(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        long values[8] = {0};
        int n = 0;
        for (char *word = strtok(arguments[i], ":"); word && n < 8; word = strtok(NULL, ":"))
            values[n++] = (long)strtoul(word, NULL, 0);
        long result = values[0] == 32 ? call32(values[1], values + 2) : call64(values[1], values + 2);
        puts(result >= 0 ? "ok" : strerrorname_np((int)-result));
        fflush(stdout);
    }
    return 0;
}
