/* right: good. Several files, and wrappers with the calls' own names. */
#include "rio.h"

static void handler(int sig)
{
    (void)sig;
    while (waitpid(-1, 0, WNOHANG) > 0)
        ;
}

static void doit(int connfd)
{
    static char buf[MAXLINE];
    ssize_t n;
    while ((n = Readline(connfd, buf, MAXLINE)) > 0) {
        printf("server received %d bytes\n", (int)n);
        fflush(stdout);
        Writen(connfd, buf, n);
    }
}

int main(int argc, char **argv)
{
    int listenfd, connfd;
    if (argc != 2) {
        fprintf(stderr, "usage: %s <port>\n", argv[0]);
        exit(0);
    }
    Signal(SIGCHLD, handler);
    listenfd = Open_listenfd(argv[1]);
    while (1) {
        connfd = Accept(listenfd, NULL, NULL);
        if (Fork() == 0) {
            Close(listenfd);
            doit(connfd);
            Close(connfd);
            exit(0);
        }
        Close(connfd);
    }
}
