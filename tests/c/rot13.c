/* rot13 for each line, a process for each connection. */
#define _DEFAULT_SOURCE /* bzero */

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define MAX_LINE  (4096)
#ifndef SERV_PORT
#define SERV_PORT (50005)
#endif

/* Rotates an ASCII letter by 13; any other byte stays. */
char rot13_char(char c)
{
    if ((c >= 'a' && c <= 'm') || (c >= 'A' && c <= 'M'))
        return c + 13;
    else if ((c >= 'n' && c <= 'z') || (c >= 'N' && c <= 'Z'))
        return c - 13;
    else
        return c;
}

/* Serves one connection: sends each line back when its newline arrives. */
void child_run(int fd)
{
    char outbuf[MAX_LINE + 1];
    size_t outbuf_used = 0;
    ssize_t result;

    while (1) {
        char ch;
        result = recv(fd, &ch, 1, 0);
        if (result == 0) {
            break;
        } else if (result == -1) {
            /* the original names no stream */
            fprintf(stderr, "recv() error:%s\n", strerror(errno));
            break;
        }

        if (outbuf_used < sizeof(outbuf))
            outbuf[outbuf_used++] = rot13_char(ch);
        if (ch == '\n') {
            send(fd, outbuf, outbuf_used, 0);
            outbuf_used = 0;
            continue;
        }
    }
}

/* Reaps every child that has ended: signals do not queue. */
void sigchld_handler(int sig)
{
    (void)sig;
    while (waitpid(-1, 0, WNOHANG) > 0)
        ;
}

/* Listens on the port at every IPv4 address, or ends the program. */
int tcp_server_listen(int port)
{
    int listenfd;
    listenfd = socket(AF_INET, SOCK_STREAM, 0);

    struct sockaddr_in server_addr;
    bzero(&server_addr, sizeof(server_addr));
    server_addr.sin_family = AF_INET;
    server_addr.sin_addr.s_addr = htonl(INADDR_ANY);
    server_addr.sin_port = htons(port);

    int on = 1;
    setsockopt(listenfd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));

    int rt1 = bind(listenfd, (struct sockaddr *)&server_addr, sizeof(server_addr));
    if (rt1 < 0) {
        fprintf(stderr, "bind() failed:%s\n", strerror(errno));
        exit(EXIT_FAILURE);
    }

    int rt2 = listen(listenfd, 1024);
    if (rt2 < 0) {
        fprintf(stderr, "listen() failed:%s\n", strerror(errno));
        exit(EXIT_FAILURE);
    }

    signal(SIGPIPE, SIG_IGN);

    return listenfd;
}

/* Accepts for ever, a child for each connection. */
int main(void)
{
    int listen_fd = tcp_server_listen(SERV_PORT);
    signal(SIGCHLD, sigchld_handler);

    while (1) {
        struct sockaddr_storage ss;
        socklen_t slen = sizeof(ss);
        int conn_fd = accept(listen_fd, (struct sockaddr *)&ss, &slen);
        if (conn_fd < 0) {
            fprintf(stderr, "accept() failed:%s\n", strerror(errno));
            exit(EXIT_FAILURE);
        }

        switch (fork()) {
        case -1:
            exit(EXIT_FAILURE);
        case 0:
            close(listen_fd);
            child_run(conn_fd);
            _exit(EXIT_SUCCESS);
        default:
            close(conn_fd);
        }
    }
}
