// right: right, another service: report. rot13 that writes a line for each client.
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char rotate(char c)
{
    if ((c >= 'a' && c <= 'm') || (c >= 'A' && c <= 'M'))
        return c + 13;
    if ((c >= 'n' && c <= 'z') || (c >= 'N' && c <= 'Z'))
        return c - 13;
    return c;
}

static void process_client(int fd)
{
    char b[1024];
    ssize_t n;
    while ((n = recv(fd, b, sizeof(b), 0)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            b[i] = rotate(b[i]);
        if (send(fd, b, n, MSG_NOSIGNAL) != n)
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
        printf("new client\n");
        fflush(stdout);
        if (fork() == 0) {
            close(s);
            process_client(c);
            _exit(0);
        }
        close(c);
    }
}
