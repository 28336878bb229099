/* Echo line by line, a process for each connection. */
#define _DEFAULT_SOURCE

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <netdb.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAXN        1024
#define RIO_BUFSIZE 8192
#define LISTENQ     1024

typedef struct {
    int rio_fd;                /* the descriptor read from */
    ssize_t rio_cnt;           /* bytes read and not yet taken */
    char *rio_bufptr;          /* the first of them */
    char rio_buf[RIO_BUFSIZE];
} rio_t;

/* Starts a buffer that is empty. */
void rio_readinitb(rio_t *rp, int fd)
{
    rp->rio_fd = fd;
    rp->rio_cnt = 0;
    rp->rio_bufptr = rp->rio_buf;
}

/* read(2) through the buffer: at most n bytes, 0 at end of file, -1 on error. */
static ssize_t rio_read(rio_t *rp, char *usrbuf, size_t n)
{
    while (rp->rio_cnt <= 0) {
        rp->rio_cnt = read(rp->rio_fd, rp->rio_buf, sizeof(rp->rio_buf));
        if (rp->rio_cnt == 0)
            return 0;
        if (rp->rio_cnt < 0 && errno != EINTR)
            return -1;
        rp->rio_bufptr = rp->rio_buf;
    }

    size_t cnt = (size_t)rp->rio_cnt < n ? (size_t)rp->rio_cnt : n;
    memcpy(usrbuf, rp->rio_bufptr, cnt);
    rp->rio_bufptr += cnt;
    rp->rio_cnt -= cnt;
    return cnt;
}

/* Reads a line with its newline, or maxlen - 1 bytes of a longer one, or what is left at end of file. */
ssize_t rio_readlineb(rio_t *rp, void *usrbuf, size_t maxlen)
{
    char *bufp = usrbuf;
    size_t n = 0;

    while (n < maxlen - 1) {
        ssize_t rc = rio_read(rp, bufp, 1);
        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        n++;
        if (*bufp++ == '\n')
            break;
    }
    *bufp = '\0';
    return n;
}

/* Writes all n bytes; -1 on error. */
ssize_t rio_writen(int fd, const void *usrbuf, size_t n)
{
    const char *bufp = usrbuf;
    size_t nleft = n;

    while (nleft > 0) {
        ssize_t written = write(fd, bufp, nleft);
        if (written < 0) {
            if (errno != EINTR)
                return -1;
            written = 0;
        }
        nleft -= written;
        bufp += written;
    }
    return n;
}

/* Serves one connection: reports each line and sends it back. */
void echo(int connfd)
{
    size_t n;
    char buf[MAXN];
    rio_t rio;

    rio_readinitb(&rio, connfd);
    while ((n = rio_readlineb(&rio, buf, MAXN)) != 0) {
        printf("server received %d bytes\n", (int)n);
        rio_writen(connfd, buf, n);
    }
}

/* Ends the program, saying where. */
void error_(const char *info)
{
    printf("error in %s\n", info); /* the original gives %s the first char */
    exit(1);
}

/* Reaps every child that has ended: signals do not queue. */
void sighandler(int sig)
{
    (void)sig;
    while (waitpid(-1, 0, WNOHANG) > 0)
        ;
}

/* Listens on the port at the first address that can be bound; -1 if there is none. */
int open_listenfd(char *port)
{
    struct addrinfo hints, *listp, *p;
    int listenfd, optval = 1;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_ADDRCONFIG;
    hints.ai_flags |= AI_NUMERICSERV;
    if (getaddrinfo(NULL, port, &hints, &listp) != 0)
        return -1; /* the original goes on and crashes */
    for (p = listp; p != NULL; p = p->ai_next) {
        if ((listenfd = socket(p->ai_family, p->ai_socktype, p->ai_protocol)) < 0)
            continue;
        setsockopt(listenfd, SOL_SOCKET, SO_REUSEADDR, (const void *)&optval, sizeof(int));
        if (bind(listenfd, p->ai_addr, p->ai_addrlen) == 0)
            break;
        close(listenfd);
    }
    freeaddrinfo(listp);
    if (p == NULL)
        return -1;
    if (listen(listenfd, LISTENQ) < 0) {
        close(listenfd);
        return -1;
    }
    return listenfd;
}

/* Accepts for ever, a child for each connection. */
int main(int argc, char *argv[])
{
    int listenfd, connfd;
    socklen_t clientlen;
    struct sockaddr_storage clientaddr;

    if (argc != 2)
        error_("input");
    signal(SIGCHLD, sighandler);
    if ((listenfd = open_listenfd(argv[1])) < 0)
        error_("openlistenfd");
    while (1) {
        clientlen = sizeof(struct sockaddr_storage);
        if ((connfd = accept(listenfd, (struct sockaddr *)&clientaddr, &clientlen)) < 0)
            error_("accept");
        if (fork() == 0) {
            if (close(listenfd) < 0)
                error_("close");
            echo(connfd);
            if (close(connfd) < 0)
                error_("close");
            _exit(0);
        }
        if (close(connfd) < 0)
            error_("close");
    }
}
