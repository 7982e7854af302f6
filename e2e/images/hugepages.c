// Takes huge pages of 2 MiB one after another, as many as the argument says, writes to each and tells how many there are;
// stops at the first that it does not get.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int main(int count, char **words) {
    int wanted = count > 1 ? atoi(words[1]) : 1;
    for (int got = 0; got < wanted; got++) {
        char *page = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        if (page == MAP_FAILED) {
            printf("%d, then %s\n", got, strerror(errno));
            return 1;
        }
        *page = 1;
    }
    printf("%d\n", wanted);
    return 0;
}
