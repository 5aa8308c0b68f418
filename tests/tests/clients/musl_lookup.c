/* A client that is linked with musl: it looks up a name for the families that are there, and connects. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *found;
    if (count != 3) return 2;
    int failed = getaddrinfo(words[1], words[2], &hints, &found);
    if (failed) {
        printf("no address: %s\n", gai_strerror(failed));
        return 1;
    }
    for (struct addrinfo *one = found; one; one = one->ai_next) {
        int made = socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const char *family = one->ai_family == AF_INET ? "IPv4" : "IPv6";
        printf("%s: %s\n", family, connect(made, one->ai_addr, one->ai_addrlen) ? "no" : "connected");
        close(made);
    }
    return 0;
}
