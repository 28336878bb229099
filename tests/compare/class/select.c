// right: process. One process serves all, with select.
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <sys/select.h>

static int listen_at(int port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 10) < 0) {
        perror("listen_at");
        exit(1);
    }
    return fd;
}

static void answer(int fd, fd_set *all)
{
    char block[4096];
    ssize_t n = read(fd, block, sizeof(block));
    if (n <= 0 || send(fd, block, n, MSG_NOSIGNAL) != n) {
        FD_CLR(fd, all);
        close(fd);
    }
}

int main(int argc, char **argv)
{
    int s = listen_at(argc > 1 ? atoi(argv[1]) : 0);
    fd_set all;
    FD_ZERO(&all);
    FD_SET(s, &all);
    for (;;) {
        fd_set ready = all;
        if (select(FD_SETSIZE, &ready, NULL, NULL, NULL) < 0)
            continue;
        for (int fd = 0; fd < FD_SETSIZE; fd++)
            if (FD_ISSET(fd, &ready) && fd != s)
                answer(fd, &all);
        if (FD_ISSET(s, &ready)) {
            int c = accept(s, NULL, NULL);
            if (c >= 0)
                FD_SET(c, &all);
        }
    }
}
