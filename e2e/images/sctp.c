// One message over SCTP: `sctp serve PORT` answers every client with what it sent, until it is killed (it may be the first
// process of a container); `sctp ask ADDRESS PORT WORD` prints the answer to a word, or fails within five seconds.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int fail(const char *what) {
    perror(what);
    return 1;
}

static int serve(int server, int port) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = INADDR_ANY};
    if (bind(server, (struct sockaddr *)&any, sizeof any) || listen(server, 8))
        return fail("listen");
    for (;;) {
        char word[256];
        int client = accept(server, NULL, NULL);
        if (client < 0)
            return fail("accept");
        ssize_t length = recv(client, word, sizeof word, 0);
        if (length > 0 && send(client, word, length, 0) != length)
            perror("send");
        close(client);
    }
}

static int ask(int client, const char *address, int port, const char *word) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(port)};
    char answer[256];
    alarm(5);
    if (inet_pton(AF_INET, address, &server.sin_addr) != 1)
        return fail("address");
    if (connect(client, (struct sockaddr *)&server, sizeof server))
        return fail("connect");
    if (send(client, word, strlen(word), 0) < 0)
        return fail("send");
    ssize_t length = recv(client, answer, sizeof answer, 0);
    if (length < 0)
        return fail("receive");
    printf("%.*s\n", (int)length, answer);
    return 0;
}

int main(int count, char **words) {
    int stream = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    if (stream < 0)
        return fail("socket");
    if (count == 3 && !strcmp(words[1], "serve"))
        return serve(stream, atoi(words[2]));
    if (count == 5 && !strcmp(words[1], "ask"))
        return ask(stream, words[2], atoi(words[3]), words[4]);
    fprintf(stderr, "sctp serve PORT | sctp ask ADDRESS PORT WORD\n");
    return 2;
}
