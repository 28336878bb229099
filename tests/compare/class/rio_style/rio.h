#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAXLINE 8192

ssize_t Readline(int fd, char *line, size_t size);
void Writen(int fd, const char *bytes, size_t size);
int Open_listenfd(const char *port);
int Accept(int s, struct sockaddr *addr, socklen_t *addrlen);
pid_t Fork(void);
void Close(int fd);
void Signal(int sig, void (*handler)(int));
