/* right: good. A rot13 server, written apart from this project's: a port of its own, a
   table for the letters, whole blocks. */
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned char rotated[256];

static void fill(void)
{
    for (int byte = 0; byte < 256; byte++)
        rotated[byte] = byte;
    for (int letter = 0; letter < 26; letter++) {
        rotated['a' + letter] = 'a' + (letter + 13) % 26;
        rotated['A' + letter] = 'A' + (letter + 13) % 26;
    }
}

static void reap(int signum)
{
    (void)signum;
    while (waitpid(-1, 0, WNOHANG) > 0)
        ;
}

static void serve(int socket)
{
    unsigned char block[2048];
    ssize_t length;

    while ((length = read(socket, block, sizeof block)) > 0) {
        for (ssize_t i = 0; i < length; i++)
            block[i] = rotated[block[i]];
        for (ssize_t done = 0, sent; done < length; done += sent)
            if ((sent = write(socket, block + done, length - done)) <= 0)
                return;
    }
}

int main(void)
{
    struct sockaddr_in any;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    fill();
    memset(&any, 0, sizeof any);
    any.sin_family = AF_INET;
    any.sin_port = htons(50005);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    signal(SIGCHLD, reap);
    signal(SIGPIPE, SIG_IGN);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) < 0 || listen(listener, 64) < 0)
        return 1;
    for (;;) {
        int client = accept(listener, 0, 0);
        if (client >= 0 && fork() == 0) {
            close(listener);
            serve(client);
            _exit(0);
        }
        close(client);
    }
}
