// right: does not compile: no_semicolon.c:15:
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int port = 7007;

int main(void)
{
    return port
}
