/* right: right, another service: report. An echo server that reports nothing. */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef void Sigfunc(int);

static Sigfunc *Signal(int signo, Sigfunc *func)
{
    struct sigaction act, oact;
    memset(&act, 0, sizeof(act));
    act.sa_handler = func;
    sigemptyset(&act.sa_mask);
    act.sa_flags = SA_RESTART;
    return sigaction(signo, &act, &oact) < 0 ? SIG_ERR : oact.sa_handler;
}

static void sig_chld(int signo)
{
    int stat;
    (void)signo;
    while (waitpid(-1, &stat, WNOHANG) > 0)
        ;
}

static ssize_t put_all(int fd, const char *from, size_t size)
{
    size_t left = size;
    while (left > 0) {
        ssize_t n = write(fd, from, left);
        if (n <= 0 && errno != EINTR)
            return -1;
        if (n > 0) {
            left -= n;
            from += n;
        }
    }
    return size;
}

static void str_echo(int sockfd)
{
    char buf[4096];
    ssize_t n;
    while ((n = read(sockfd, buf, sizeof(buf))) > 0)
        if (put_all(sockfd, buf, n) < 0)
            return;
}

int main(int argc, char **argv)
{
    struct sockaddr_in servaddr = {.sin_family = AF_INET};
    int on = 1, listenfd = socket(AF_INET, SOCK_STREAM, 0);
    if (argc < 2)
        return 1;
    servaddr.sin_port = htons(atoi(argv[1]));
    setsockopt(listenfd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listenfd, (struct sockaddr *)&servaddr, sizeof(servaddr)) < 0 || listen(listenfd, 5) < 0) {
        perror("bind or listen");
        return 1;
    }
    Signal(SIGCHLD, sig_chld);
    for (;;) {
        int connfd = accept(listenfd, NULL, NULL);
        if (connfd < 0) {
            if (errno == EINTR)
                continue;
            perror("accept");
            return 1;
        }
        if (fork() == 0) {
            close(listenfd);
            str_echo(connfd);
            exit(0);
        }
        close(connfd);
    }
}
