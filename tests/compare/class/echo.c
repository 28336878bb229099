/* right: good. An echo server, written apart from this project's: other names, other
   calls, a standard stream for each direction. */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void bury(int signum)
{
    int saved = errno;
    (void)signum;
    while (waitpid((pid_t)-1, NULL, WNOHANG) > 0)
        continue;
    errno = saved;
}

static void talk(int client)
{
    FILE *in = fdopen(client, "r"), *out = fdopen(dup(client), "w");
    char *text = NULL;
    size_t room = 0;
    ssize_t length;

    while (in && out && (length = getline(&text, &room, in)) > 0) {
        printf("server received %zd bytes\n", length);
        if (fwrite(text, 1, length, out) != (size_t)length || fflush(out) != 0)
            break;
    }
    exit(EXIT_SUCCESS);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct sigaction reaper = {.sa_handler = bury, .sa_flags = SA_RESTART};
    int yes = 1, door = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_port = htons(argc > 1 ? atoi(argv[1]) : 7007);
    sigaction(SIGCHLD, &reaper, NULL);
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(door, (struct sockaddr *)&address, sizeof address) || listen(door, 128)) {
        perror("echo");
        return EXIT_FAILURE;
    }
    for (;;) {
        int client = accept(door, NULL, NULL);
        if (client < 0)
            continue;
        if (fork() == 0) {
            close(door);
            talk(client);
        }
        close(client);
    }
}
