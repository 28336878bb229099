#include "rio.h"

static void unix_error(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

ssize_t Readline(int fd, char *line, size_t size)
{
    size_t n = 0;
    while (n < size && read(fd, line + n, 1) == 1)
        if (line[n++] == '\n')
            break;
    return n;
}

void Writen(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n <= 0)
            unix_error("Writen error");
        bytes += n;
        size -= n;
    }
}

int Open_listenfd(const char *port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1024) < 0)
        unix_error("Open_listenfd error");
    return fd;
}

int Accept(int s, struct sockaddr *addr, socklen_t *addrlen)
{
    int fd = accept(s, addr, addrlen);
    if (fd < 0)
        unix_error("Accept error");
    return fd;
}

pid_t Fork(void)
{
    pid_t pid = fork();
    if (pid < 0)
        unix_error("Fork error");
    return pid;
}

void Close(int fd)
{
    if (close(fd) < 0)
        unix_error("Close error");
}

void Signal(int sig, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    if (sigaction(sig, &action, NULL) < 0)
        unix_error("Signal error");
}
