// right: descriptor. The parent does not close the connection.
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void serve(int fd)
{
    FILE *in = fdopen(fd, "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    while (in != NULL && (n = getline(&line, &size, in)) > 0) {
        printf("server received %zd bytes\n", n);
        fflush(stdout);
        if (send(fd, line, n, MSG_NOSIGNAL) != n)
            break;
    }
}

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

static void on_child(int sig)
{
    (void)sig;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

int main(int argc, char **argv)
{
    int s = listen_at(argc > 1 ? atoi(argv[1]) : 0);
    signal(SIGCHLD, on_child);
    for (;;) {
        int c = accept(s, NULL, NULL);
        if (c < 0)
            continue;
        if (fork() == 0) {
            close(s);
            serve(c);
            _exit(0);
        }
    }
}
